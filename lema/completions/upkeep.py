"""Care of the completion store: what is wrong with it, and what of it serves nobody."""

import os
from collections.abc import Collection, Iterable, Iterator
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
class Findings:
    """What `verify` counted, and one line a fault. `copies` are replies that another one is served before."""

    packs: int = 0
    journals: int = 0
    completions: int = 0
    copies: int = 0
    failures: int = 0
    faults: list[str] = field(default_factory=list)


def verify(store: Store) -> Findings:
    """Read all of the store, packs against their names and journals to their ends. Nothing is changed."""
    found, seen = Findings(), Keys()

    def count(rows: Iterable[tuple[str, bool]]) -> None:
        for key, served in rows:
            if not served:
                found.failures += 1
            elif seen.add(key):
                found.completions += 1
            else:
                found.copies += 1

    for path in packs.pack_paths(store.packs):
        found.packs += 1
        try:
            count((key, served) for key, _, served in _intact(path).labels())
        except RunError as error:
            found.faults.append(str(error))
    for path in sorted(store.journals.glob("*.jsonl")):
        found.journals += 1
        handle, lines = claim_log(path), read_journal(path)
        for _, entries in lines.lines(quiet=True):
            count((entry.id, entry.finish in packs.SERVED) for entry in entries)
        # A process that is alive may be writing its last line.
        torn = [number for number in lines.torn if handle is not None or number < lines.count]
        found.faults += [f"{path}, line {number} is incomplete; lema completions seal leaves it out" for number in torn]
        lines.close()
        if handle is not None:
            os.close(handle)
    for path in sorted(set(store.packs.glob("*")) - set(packs.pack_paths(store.packs))):
        left = path.name == packs.PARTIAL
        found.faults.append(f"{path} {'was left by a process that was killed; delete it' if left else 'is no pack'}")
    return found


@dataclass(frozen=True)
class Pruned:
    """What `prune` drops: copies of a reply that another one is served before, records of failures, replies that
    nobody needs; and how many packs are written anew for that."""

    copies: int = 0
    failures: int = 0
    unneeded: int = 0
    packs: int = 0


def prune(
    store: Store, *, needed: Collection[str] | None = None, labels: Collection[str] = (), really: bool = False
) -> Pruned:
    """Write packs anew without what is never served and, when `needed` are given, without replies that have none of
    these keys and whose model has none of these labels. Old packs are deleted once the new ones are on the disk.

    Raises:
        RunError: a pack is damaged, or the disk is full or not writable; nothing is deleted then.
    """
    counts = {"copies": 0, "failures": 0, "unneeded": 0}
    seen, kept = Keys(), dict[Path, list[bool]]()
    with files.explain_write_errors(store.packs), files.lock(store.packs):
        for path in packs.pack_paths(store.packs):
            flags = []
            for key, label, served in _intact(path).labels():
                if not served:
                    why = "failures"
                elif needed is not None and key not in needed and label not in labels:
                    why = "unneeded"
                else:
                    why = "" if seen.add(key) else "copies"
                flags.append(not why)
                if why:
                    counts[why] += 1
            if not all(flags):
                kept[path] = flags
        if really and kept:
            made = packs.write_packs(store.packs, _kept(kept))
            for path in kept:
                if path not in made:
                    path.unlink()
    return Pruned(**counts, packs=len(kept))


def _kept(flags: dict[Path, list[bool]]) -> Iterator[Entry]:
    for path, keep in flags.items():
        yield from compress(Pack(path).entries(), keep)


def _intact(path: Path) -> Pack:
    try:
        if packs.pack_digest(path) == path.stem:
            return Pack(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    raise packs.damaged_pack(path)
