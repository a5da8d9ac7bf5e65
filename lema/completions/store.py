"""The completion store: every reply that was paid for, by the key of its request, once and for ever.

A process appends to a journal of its own (`lema.completions.journal`), on the disk before `add` returns. `seal` turns
journals whose process is done into packs (`lema.completions.packs`): immutable Parquet files that only grow in
number, so they are shared as they are (DVC, a network disk); journals stay where they were written. Replies are
looked up by key alone (`lema.models.types.key`); no prompt text is stored. Failures and refusals are recorded, and
never served.

In memory is an index, 48 bytes a completion; texts are read back when they are asked for.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from lema.completions import packs
from lema.completions.index import KEY, Index, raw
from lema.completions.journal import Journal, Lines, claim
from lema.completions.packs import SERVED, Entry, Pack, Verified
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Completion

# A number of the index: which source, and which part of it, a row group of a pack or the start of a line of a journal.
PART = 2**44
CACHE = 2**26  # bytes of text that stay in memory
OPEN = 16  # packs whose files stay open

# What is stored of a reply: an entry is a key, a model's label and these.
_fields = attrgetter(*(field.name for field in fields(Entry)[2:]))


def packs_folder() -> Path:
    """Where packs lie: `$LEMA_HOME/completions`, or `completions` in the project when LEMA_HOME is not set."""
    return files.home() / "completions" if os.environ.get("LEMA_HOME") else Path("completions")


class Store:
    """Completions by key. Sees what is there at the first look-up; safe with several processes at once, each of
    which calls it from one thread.

    Of two replies for one key the same one is always served: packs in the order of their names, then journals.
    """

    def __init__(self, journals: Path, packs: Path) -> None:
        self.journals, self.packs = journals, packs
        self._own: Journal | None = None
        self._index: Index | None = None
        self._sources: list[Path | Lines] = []
        self._files: OrderedDict[Path, Pack] = OrderedDict()
        self._parts: OrderedDict[int, tuple[dict[str, Completion], int]] = OrderedDict()
        self._held = 0
        self._own_source = 0
        self._failures = 0
        self._doubtful = False

    def get(self, key: str) -> Completion | None:
        """The reply to the request with this key, None when it was never answered.

        Raises:
            RunError: a pack is damaged.
        """
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str]) -> list[Completion | None]:
        """`get` for many at once, in their order; each part of the store that holds some of them is read once."""
        try:
            return self._get_many(keys)
        except (OSError, ValueError):
            # Sealed or pruned by another process since we looked, or else damaged.
            self._close()
            self._doubtful = True
        try:
            return self._get_many(keys)
        except (OSError, ValueError) as error:
            raise RunError(f"the completion store cannot be read: {error}") from None

    def known(self, keys: Sequence[str]) -> list[bool]:
        """Whether the requests with these keys were ever answered; reads no reply."""
        return [number >= 0 for number in self._opened().find(keys)]

    def add(self, pairs: Sequence[tuple[str, Completion]], *, model: str) -> None:
        """Record replies of one model under their keys; they are on the disk when this returns.

        Raises:
            RunError: the disk is full or not writable; none of them is recorded then, and all others are.
        """
        index, journal = self._opened(), self.writable()
        entries = [Entry(key, model, *_fields(reply)) for key, reply in pairs]
        for entry in entries:
            raw(entry.id)
        try:
            number = self._own_source * PART + journal.append(entries)
        except OSError as error:
            raise unwritable(error) from None
        self._count(index, entries, number)
        self._keep(number, pairs)

    def writable(self) -> Journal:
        """The journal of this process; made now if there is none, so that nothing is bought for a disk that is full.

        Raises:
            RunError: the disk is full or not writable.
        """
        self._opened()
        if self._own is None:
            try:
                self._own = Journal(self.journals)
                self._own_source = len(self._sources)
                self._sources.append(Lines(self._own.path))
            except OSError as error:
                raise unwritable(error) from None
        return self._own

    def seal(self) -> list[Path]:
        """Turn the journals of this process and of those that are gone into packs, and return their paths, none when
        there was nothing new in them. A journal is deleted once its packs are on the disk.

        Raises:
            RunError: a pack is damaged, or the disk is full or not writable; the journals are kept then.
        """
        if self._own is not None:
            self._own.close()
            self._own = None
        if not self._journals():
            return []
        self._close()
        try:
            with files.lock(self.packs):
                journals = [(path, handle) for path in self._journals() if (handle := claim(path)) is not None]
                try:
                    made = (
                        packs.write_packs(self.packs, self._fresh([path for path, _ in journals])) if journals else []
                    )
                    for path, _ in journals:
                        path.unlink()
                finally:
                    self._close()
                    for _, handle in journals:
                        os.close(handle)
        except OSError as error:
            raise unwritable(error) from None
        return made

    def stats(self) -> dict[str, int]:
        """Counts: completions that can be served, those of them not in a pack yet, packs, recorded failures."""
        index = self._opened()
        count = sum(isinstance(source, Path) for source in self._sources)
        return {
            "completions": len(index),
            "unsealed": index.count(count * PART),
            "packs": count,
            "failures": self._failures,
        }

    def _journals(self) -> list[Path]:
        return sorted(self.journals.glob("*.jsonl"))

    def _opened(self) -> Index:
        if self._index is None:
            try:
                self._index = self._load(self._journals())
            except FileNotFoundError:
                # A pack was pruned since it was listed.
                self._close()
                self._index = self._load(self._journals())
            for number, source in enumerate(self._sources):
                if self._own is not None and isinstance(source, Lines) and source.path == self._own.path:
                    self._own_source = number
        return self._index

    def _close(self) -> None:
        """Forget what is there; the next look-up reads it again."""
        for source in self._sources:
            if isinstance(source, Lines):
                source.close()
        for pack in self._files.values():
            pack.close()
        self._index, self._sources, self._failures, self._held = None, [], 0, 0
        self._files.clear()
        self._parts.clear()

    def _load(self, journals: Sequence[Path]) -> Index:
        """An index of all packs and of some journals."""
        # Journals first: one that is sealed and deleted meanwhile is then found in a pack.
        lines = [found for path in journals if (found := _lines(path)) is not None]
        index, verified = Index(), Verified(files.home() / "packs.json", trusting=not self._doubtful)
        parts = []
        for number, path in enumerate(packs.pack_paths(self.packs)):
            verified.check(path)
            keys, groups, served = self._pack(path).keys()
            self._failures += int((~served).sum())
            whole = np.frombuffer(keys, f"S{KEY}")[served].tobytes()
            parts.append((whole, groups[served] + number * PART))
            self._sources.append(path)
        verified.save()
        index.extend(parts)
        for journal in lines:
            first = len(self._sources) * PART
            self._sources.append(journal)
            for start, entries in journal.batches():
                self._count(index, entries, first + start)
        return index

    def _count(self, index: Index, entries: Sequence[Entry], number: int) -> None:
        served = [entry.id for entry in entries if entry.finish in SERVED]
        index.add(served, number)
        self._failures += len(entries) - len(served)

    def _fresh(self, journals: Sequence[Path]) -> Iterator[Entry]:
        """What of these journals no pack holds: for each key the reply that is served, or one of its failures."""
        index = self._load(journals)
        failed: set[str] = set()
        for number, source in enumerate(self._sources):
            if not isinstance(source, Lines):
                continue
            for start, entries in source.batches(quiet=True):
                places = index.find([entry.id for entry in entries])
                served: set[str] = set()
                for entry, place in zip(entries, places, strict=True):
                    seen = served if entry.finish in SERVED else failed
                    if place == (number * PART + start if seen is served else -1) and entry.id not in seen:
                        seen.add(entry.id)
                        yield entry

    def _get_many(self, keys: Sequence[str]) -> list[Completion | None]:
        found: list[Completion | None] = [None] * len(keys)
        numbers = self._opened().find(keys)
        there = sorted((at for at, number in enumerate(numbers) if number >= 0), key=numbers.__getitem__)
        for number, places in groupby(there, key=numbers.__getitem__):
            part = self._part(number)
            for at in places:
                found[at] = part[keys[at]]
        return found

    def _part(self, number: int) -> dict[str, Completion]:
        """The replies of a row group or of a line, by key."""
        if number in self._parts:
            self._parts.move_to_end(number)
            return self._parts[number][0]
        source, part = self._sources[number // PART], number % PART
        if isinstance(source, Lines):
            return self._keep(number, ((entry.id, _reply(entry)) for entry in source.read(part)))
        return self._keep(number, self._pack(source).group(part))

    def _keep(self, number: int, pairs: Iterable[tuple[str, Completion]]) -> dict[str, Completion]:
        served = [(key, reply) for key, reply in pairs if reply.finish in SERVED]
        part = dict(reversed(served))  # of two replies for one key the first
        size = sum(len(reply.text) + packs.ROW for reply in part.values())
        self._parts[number] = part, size
        self._held += size
        while self._held > CACHE and len(self._parts) > 1:
            self._held -= self._parts.popitem(last=False)[1][1]
        return part

    def _pack(self, path: Path) -> Pack:
        if path not in self._files:
            self._files[path] = Pack(path)
            if len(self._files) > OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]


def _reply(entry: Entry) -> Completion:
    return Completion(*_fields(entry))


def _lines(path: Path) -> Lines | None:
    try:
        return Lines(path)
    except FileNotFoundError:
        return None


def unwritable(error: OSError) -> RunError:
    return RunError(f"the completion store cannot be written: {error}")
