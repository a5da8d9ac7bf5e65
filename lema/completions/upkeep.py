"""Maintenance of the completion store: verify that it is intact, and prune what is never served."""

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lema.completions import packs
from lema.completions.append_log import claim_log
from lema.completions.index import KEY_TYPE
from lema.completions.packs import Pack
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
    found, parts = StoreReport(), [np.empty(0, KEY_TYPE)]
    paths = packs.pack_paths(store.packs)
    for path in paths:
        found.packs += 1
        try:
            for keys, served, _ in _intact_pack(path).key_groups():
                parts.append(keys[served])
                found.failures += len(keys) - len(parts[-1])
        except RunError as error:
            found.faults.append(str(error))
    for path in sorted(store.journals.glob("*.jsonl")):
        found.journals += 1
        handle, journal = claim_log(path), read_journal(path)
        for _, entries in journal.lines(quiet=True):
            replies = [bytes.fromhex(entry.id) for entry in entries if entry.finish in packs.SERVED]
            parts.append(np.array(replies, KEY_TYPE))
            found.failures += len(entries) - len(replies)
        # A process that is alive may be writing its last line.
        torn = [number for number in journal.torn if handle is not None or number < journal.count]
        found.faults += [f"{path}, line {number} is incomplete; lema completions seal leaves it out" for number in torn]
        journal.close()
        if handle is not None:
            os.close(handle)
    found.completions = len(np.unique(np.concatenate(parts)))
    found.copies = sum(map(len, parts)) - found.completions
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
    counts, kept, seen = Counter[str](), dict[Path, Any](), np.empty(0, KEY_TYPE)
    with files.explain_write_errors(store.packs), files.lock(store.packs):
        for path in packs.pack_paths(store.packs):
            pack = _intact_pack(path)
            keys, served, _ = map(np.concatenate, zip(*pack.key_groups(), strict=True))
            wanted = served
            if needed is not None:
                of_model = pc.is_in(pack.models(), value_set=pa.array(labels, pa.string())).to_numpy()
                wanted = served & (of_model | np.isin(keys, np.array([bytes.fromhex(key) for key in needed], KEY_TYPE)))
            at = np.flatnonzero(wanted)
            at = at[np.unique(keys[at], return_index=True)[1]]  # of several replies for one key the first is served
            at = at[~np.isin(keys[at], seen)]
            seen = np.concatenate([seen, keys[at]])
            counts.update(failures=(~served).sum(), unneeded=served.sum() - wanted.sum(), copies=wanted.sum() - len(at))
            if len(at) < len(keys):
                kept[path] = np.isin(np.arange(len(keys)), at)
        if really and kept:
            entries = (entry for path, keep in kept.items() for entry in compress(Pack(path).entries(), keep))
            made = packs.write_packs(store.packs, entries)
            for path in kept:
                if path not in made:
                    path.unlink()
    return Pruned(**{name: int(count) for name, count in counts.items()}, packs=len(kept))


def _intact_pack(path: Path) -> Pack:
    try:
        if packs.pack_digest(path) == path.stem:
            return Pack(path)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    raise packs.damaged_pack(path)
