"""Maintenance of the completion store: verify that it is intact, and prune what is never served."""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

from lema.completions import packs
from lema.completions.append_log import claim_log
from lema.completions.index import Keys
from lema.completions.packs import Entry, Pack
from lema.completions.store import Store, read_journal
from lema.compute import files
from lema.errors import RunError


@dataclass
class StoreReport:
    """What `verify` counted, and one line a fault. `copies` are replies for which another one is served."""

    packs: int = 0
    journals: int = 0
    completions: int = 0
    copies: int = 0
    failures: int = 0
    faults: list[str] = field(default_factory=list)


def verify_store(store: Store) -> StoreReport:
    """Read all of the store, and verify packs against their names and journals to their ends. Changes nothing."""
    found, seen = StoreReport(), Keys()

    def count(key: str, served: bool) -> None:
        if not served:
            found.failures += 1
        elif seen.add(key):
            found.completions += 1
        else:
            found.copies += 1

    paths = packs.pack_paths(store.packs)
    for path in paths:
        found.packs += 1
        try:
            for key, _, served in _intact_pack(path).labels():
                count(key, served)
        except RunError as error:
            found.faults.append(str(error))
    for path in sorted(store.journals.glob("*.jsonl")):
        found.journals += 1
        handle, journal = claim_log(path), read_journal(path)
        for _, entries in journal.lines(quiet=True):
            for entry in entries:
                count(entry.id, entry.finish in packs.SERVED)
        # A process that is alive may be writing its last line.
        torn = [number for number in journal.torn if handle is not None or number < journal.count]
        found.faults += [f"{path}, line {number} is incomplete; lema completions seal leaves it out" for number in torn]
        journal.close()
        if handle is not None:
            os.close(handle)
    for path in sorted(set(store.packs.glob("*")) - set(paths)):
        left = path.name == packs.PARTIAL
        found.faults.append(f"{path} {'was left by a process that was killed; delete it' if left else 'is no pack'}")
    return found


@dataclass(frozen=True)
class Pruned:
    """What `prune` drops: copies of a reply for which another one is served, records of failures, replies that nobody
    needs; and how many packs are rewritten for that."""

    copies: int = 0
    failures: int = 0
    unneeded: int = 0
    packs: int = 0


def prune_packs(
    store: Store, *, needed: Collection[str] | None = None, labels: Collection[str] = (), really: bool = False
) -> Pruned:
    """Rewrite packs without what is never served and, when `needed` are given, without replies that have none of
    these keys and whose model has none of these labels. Old packs are deleted once the new ones are on the disk.

    Raises:
        RunError: a pack is damaged, or the disk is full or not writable; nothing is deleted then.
    """
    counts: Counter[str] = Counter()
    seen, kept = Keys(), dict[Path, list[bool]]()
    with files.explain_write_errors(store.packs), files.lock(store.packs):
        for path in packs.pack_paths(store.packs):
            flags = []
            for key, label, served in _intact_pack(path).labels():
                if not served:
                    reason = "failures"
                elif needed is not None and key not in needed and label not in labels:
                    reason = "unneeded"
                else:
                    reason = "" if seen.add(key) else "copies"
                flags.append(not reason)
                counts[reason] += 1
            if not all(flags):
                kept[path] = flags
        if really and kept:
            made = packs.write_packs(store.packs, _kept_entries(kept))
            for path in kept:
                if path not in made:
                    path.unlink()
    return Pruned(counts["copies"], counts["failures"], counts["unneeded"], packs=len(kept))


def _kept_entries(flags: dict[Path, list[bool]]) -> Iterator[Entry]:
    for path, keep in flags.items():
        yield from compress(Pack(path).entries(), keep)


def _intact_pack(path: Path) -> Pack:
    try:
        if packs.pack_digest(path) == path.stem:
            return Pack(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    raise packs.damaged_pack(path)
