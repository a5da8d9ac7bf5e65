"""The completion store: every reply that was paid for, by the key of its request, once and for ever.

A process appends to a write-ahead journal of its own (`lema.completions.append_log`), one line a batch, on the disk
before `add` returns. `seal` turns journals whose process is done into packs (`lema.completions.packs`): immutable,
content-addressed Parquet files that only grow in number, so they are shared as they are (DVC, a network disk); journals
stay where they were written. Replies are looked up by cache key alone (`lema.models.types.Request.key`); no prompt text
is stored. Failures and refusals are recorded, and never served.

In memory is an index, 24 bytes a completion; texts are read back when they are asked for, and an LRU cache keeps some.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from lema.completions import packs
from lema.completions.append_log import AppendLog, LogReader, claim_log
from lema.completions.index import Index
from lema.completions.packs import SERVED, Entry, Pack
from lema.compute import files
from lema.errors import RunError
from lema.models.types import Completion

# A number of the index is source * SOURCE_SPAN + part: a pack and its row group, or a journal and a line's offset.
SOURCE_SPAN = 2**44
CACHE = 2**22  # bytes of text that stay in memory
OPEN = 16  # packs whose files stay open

# What is stored of a reply: an entry is a key, a model's label and these.
_reply_values = attrgetter(*(field.name for field in fields(Entry)[2:]))


def read_journal(path: Path) -> LogReader[list[Entry]]:
    """The batches of a journal: one line each, entries as lists of their values. Raises FileNotFoundError."""
    return LogReader(path, lambda line: [Entry(*values) for values in line])


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
        self._own: AppendLog | None = None
        self._index: Index | None = None
        self._sources: list[Path | LogReader[list[Entry]]] = []
        self._open_packs: OrderedDict[Path, Pack] = OrderedDict()
        self._cached_parts: OrderedDict[int, tuple[dict[str, Completion], int]] = OrderedDict()
        self._cached_bytes = 0
        self._own_source = 0
        self._failures = 0
        self._verify_again = False

    def get(self, key: str) -> Completion | None:
        """The reply to the request with this key, None when it was never answered.

        Raises:
            RunError: a pack is damaged.
        """
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[str]) -> list[Completion | None]:
        """`get` for many at once, in their order; each part of the store that holds some of them is read once."""
        found: list[Completion | None] = [None] * len(keys)
        for last in (False, True):
            try:
                numbers = (self._index or self._open()).find(keys)
                there = filter(lambda at: numbers[at] >= 0, range(len(keys)))
                for number, places in groupby(sorted(there, key=numbers.__getitem__), key=numbers.__getitem__):
                    part = self._read_part(number)
                    for at in places:
                        found[at] = part[keys[at]]
                break
            except (OSError, ValueError) as error:
                if last:
                    raise RunError(f"the completion store cannot be read: {error}") from None
                # Sealed or pruned by another process since we looked, or else damaged.
                self._forget()
                self._verify_again = True
        return found

    def known(self, keys: Sequence[str]) -> list[bool]:
        """Whether the requests with these keys were ever answered; reads no reply."""
        return [number >= 0 for number in (self._index or self._open()).find(keys)]

    def add(self, pairs: Sequence[tuple[str, Completion]], *, model: str) -> None:
        """Record replies of one model under their keys; they are on the disk when this returns.

        Raises:
            RunError: the disk is full or not writable; none of them is recorded then, and all others are.
        """
        journal, served, line, failures = self.writable(), dict[str, Completion](), list[tuple[Any, ...]](), 0
        for key, reply in pairs:
            line.append((key, model, *_reply_values(reply)))
            if reply.finish in SERVED:
                served.setdefault(key, reply)
            else:
                failures += 1
        # One line a batch: after a crash a batch is there or it is not, so the rest is asked for in whole batches.
        number = self._own_source * SOURCE_SPAN + journal.append([line])
        (self._index or self._open()).add(list(served), number)
        self._failures += failures
        self._cache_part(number, served)

    def writable(self) -> AppendLog:
        """The journal of this process; made now if there is none, so that nothing is bought for a disk that is full.

        Raises:
            RunError: the disk is full or not writable.
        """
        if self._index is None:
            self._open()
        if self._own is None:
            self._own = AppendLog.of_this_process(self.journals, "the completion store", fsync=True)
            self._own_source = len(self._sources)
            self._sources.append(read_journal(self._own.path))
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
        made = list[Path]()
        if not self._journals():
            return made
        self._forget()
        with files.explain_write_errors(self.packs), files.lock(self.packs), ExitStack() as end:
            claimed = []
            for path in self._journals():
                if (handle := claim_log(path)) is not None:
                    end.callback(os.close, handle)
                    claimed.append(path)
            end.callback(self._forget)
            if claimed:
                made = packs.write_packs(self.packs, self._unsealed(self._open(claimed)))
            for path in claimed:
                path.unlink()
        return made

    def stats(self) -> dict[str, int]:
        """Counts: completions that can be served, those of them not in a pack yet, packs, recorded failures."""
        index = self._index or self._open()
        count = sum(isinstance(source, Path) for source in self._sources)
        return {
            "completions": index.count(),
            "unsealed": index.count(count * SOURCE_SPAN),
            "packs": count,
            "failures": self._failures,
        }

    def _journals(self) -> list[Path]:
        return sorted(self.journals.glob("*.jsonl"))

    def _forget(self) -> None:
        """Forget what is there; the next look-up reads it again."""
        for source in self._sources:
            if isinstance(source, LogReader):
                source.close()
        for pack in self._open_packs.values():
            pack.close()
        self._index, self._sources, self._failures, self._cached_bytes = None, [], 0, 0
        self._open_packs.clear()
        self._cached_parts.clear()

    def _open(self, journals: Sequence[Path] | None = None, *, again: bool = True) -> Index:
        """An index of all packs, and of all journals or of some."""
        # Journals first: one that is sealed and deleted meanwhile is then found in a pack.
        readers, index = list[LogReader[list[Entry]]](), Index()
        for path in self._journals() if journals is None else journals:
            with suppress(FileNotFoundError):
                readers.append(read_journal(path))
        try:
            paths = packs.pack_paths(self.packs)
            packs.verify_packs(paths, files.home() / "packs.json", trusting=not self._verify_again)
            for number, path in enumerate(paths):
                for keys, there, groups in self._open_pack(path).key_groups():
                    index.extend(keys[there].tobytes(), groups[there] + number * SOURCE_SPAN)
                    self._failures += int((~there).sum())
        except FileNotFoundError:
            # A pack was pruned since it was listed.
            self._forget()
            if again:
                return self._open(journals, again=False)
            raise
        self._sources += paths
        for journal in readers:
            if self._own is not None and journal.path == self._own.path:
                self._own_source = len(self._sources)
            first = len(self._sources) * SOURCE_SPAN
            self._sources.append(journal)
            for start, entries in journal.lines():
                served = [entry.id for entry in entries if entry.finish in SERVED]
                index.add(served, first + start)
                self._failures += len(entries) - len(served)
        self._index = index
        return index

    def _unsealed(self, index: Index) -> Iterator[Entry]:
        """What of the journals no pack holds: for each key the reply that is served, or one of its failures."""
        failed: set[str] = set()
        for number, source in enumerate(self._sources):
            if not isinstance(source, LogReader):
                continue
            for start, entries in source.lines(quiet=True):
                places = index.find([entry.id for entry in entries])
                served: set[str] = set()
                for entry, place in zip(entries, places, strict=True):
                    seen = served if entry.finish in SERVED else failed
                    if place == (number * SOURCE_SPAN + start if seen is served else -1) and entry.id not in seen:
                        seen.add(entry.id)
                        yield entry

    def _read_part(self, number: int) -> dict[str, Completion]:
        """The replies of a row group or of a line, by key."""
        if number in self._cached_parts:
            self._cached_parts.move_to_end(number)
            return self._cached_parts[number][0]
        source, part, found = self._sources[number // SOURCE_SPAN], number % SOURCE_SPAN, dict[str, Completion]()
        pairs: Iterator[tuple[str, Completion]]
        if isinstance(source, LogReader):
            pairs = ((entry.id, Completion(*_reply_values(entry))) for entry in source.read(part))
        else:
            pairs = self._open_pack(source).group(part)
        for key, reply in pairs:
            if reply.finish in SERVED:
                found.setdefault(key, reply)
        self._cache_part(number, found)
        return found

    def _cache_part(self, number: int, part: dict[str, Completion]) -> None:
        size = len(part) * packs.ROW
        for reply in part.values():
            size += len(reply.text)
        self._cached_parts[number] = part, size
        self._cached_bytes += size
        while self._cached_bytes > CACHE and len(self._cached_parts) > 1:
            self._cached_bytes -= self._cached_parts.popitem(last=False)[1][1]

    def _open_pack(self, path: Path) -> Pack:
        if path not in self._open_packs:
            self._open_packs[path] = Pack(path)
            if len(self._open_packs) > OPEN:
                self._open_packs.popitem(last=False)[1].close()
        self._open_packs.move_to_end(path)
        return self._open_packs[path]
