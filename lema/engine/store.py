"""The completion store: every reply that was paid for, by the key of its request, once and for ever.

A process appends to a journal of its own, one JSON line a batch, on the disk before `add` returns. `seal` turns
journals whose process is done into a pack: an immutable Parquet file named after the SHA-256 of its bytes. Packs
only grow in number, so they are shared as they are (DVC, a network disk); journals stay where they were written.
Replies are looked up by key alone (`lema.models.key`); no prompt text is stored. Failures and refusals are
recorded, and never served.
"""

import fcntl
import hashlib
import json
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lema.engine import files, parquet
from lema.errors import RunError
from lema.models import Completion
from lema.rows import Finish

log = logging.getLogger(__name__)

SERVED = ("stop", "length")
PACK_NAME = 32  # hexadecimal digits


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a pack; `id` is the key of the request, `model` the label under which it was asked."""

    id: str
    model: str
    text: str
    finish: Finish
    error: str | None
    prompt_tokens: int
    completion_tokens: int

    def completion(self) -> Completion:
        return Completion(self.text, self.finish, self.error, self.prompt_tokens, self.completion_tokens)


def packs_folder() -> Path:
    """Where packs lie: `$LEMA_HOME/completions`, or `completions` in the project when LEMA_HOME is not set."""
    return files.home() / "completions" if os.environ.get("LEMA_HOME") else Path("completions")


class Store:
    """Completions by key. Reads packs and journals at the first look-up; safe with several processes at once.

    Of two replies for one key the same one is always served: packs in the order of their names, then journals.
    """

    def __init__(self, journal: Path, packs: Path) -> None:
        self._journal, self._packs = journal, packs
        self._own: BinaryIO | None = None
        # Packs stay Arrow tables, one Python object a reply is made only when asked for.
        self._tables: list[list[Any]] = []
        self._rows: dict[str, tuple[int, int]] = {}
        self._fresh: dict[str, Entry] = {}
        self._failures: Counter[str] = Counter()
        self._opened = False

    def get(self, key: str) -> Completion | None:
        """The reply to the request with this key, None when it was never answered.

        Raises:
            RunError: a pack is damaged.
        """
        self._open()
        if key in self._rows:
            table, row = self._rows[key]
            return Entry(*(column[row].as_py() for column in self._tables[table])).completion()
        entry = self._fresh.get(key)
        return entry.completion() if entry else None

    def __contains__(self, key: str) -> bool:
        """Whether the request with this key was ever answered."""
        return self.get(key) is not None

    def get_many(self, keys: Sequence[str]) -> list[Completion | None]:
        """`get` for many at once, in their order."""
        return [self.get(key) for key in keys]

    def add(self, pairs: Sequence[tuple[str, Completion]], *, model: str) -> None:
        """Record replies of one model under their keys; they are on the disk when this returns.

        Raises:
            RunError: the disk is full or not writable.
        """
        self._open()
        entries = [
            Entry(key, model, reply.text, reply.finish, reply.error, reply.prompt_tokens, reply.completion_tokens)
            for key, reply in pairs
        ]
        # One line a batch: after a crash a batch is there or it is not, so the rest is asked for in whole batches.
        line = json.dumps([[getattr(entry, name) for name in Entry.__slots__] for entry in entries]).encode() + b"\n"
        try:
            file = self._writer()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"the completion store cannot be written: {error}") from None
        for entry in entries:
            self._remember(entry)

    def seal(self) -> Path | None:
        """Turn the journals of this process and of those that are gone into one pack, and return its path; None when
        there was nothing new in them. A journal is deleted once the pack is on the disk.

        Raises:
            RunError: a pack is damaged, or the disk is full or not writable.
        """
        self._open()
        if self._own is not None:
            self._own.close()
            self._own = None
        with files.lock(self._packs):
            journals = [(path, handle) for path in self._journals() if (handle := _claim(path)) is not None]
            try:
                pack = self._pack([entry for path, _ in journals for entry in _read_journal(path)])
                for path, _ in journals:
                    path.unlink()
            finally:
                for _, handle in journals:
                    os.close(handle)
        return pack

    def stats(self) -> dict[str, int]:
        """Counts: completions that can be served, those of them not in a pack yet, packs, recorded failures."""
        self._open()
        return {
            "completions": len(self._rows) + len(self._fresh),
            "unsealed": len(self._fresh),
            "packs": len(self._tables),
            "failures": self._failures.total(),
        }

    def _open(self) -> None:
        if self._opened:
            return
        # Journals first: one that is sealed and deleted meanwhile is then found in a pack.
        entries = [entry for path in self._journals() for entry in _read_journal(path)]
        for path in sorted(self._packs.glob("*.parquet")):
            self._load(path)
        for entry in entries:
            self._remember(entry)
        self._opened = True

    def _journals(self) -> list[Path]:
        return sorted(self._journal.glob("*.jsonl"))

    def _load(self, path: Path) -> None:
        if hashlib.sha256(path.read_bytes()).hexdigest()[:PACK_NAME] != path.stem:
            raise RunError(
                f"{path} is damaged: its bytes do not match its name. Fetch it again (`dvc pull`) or, when there is "
                "no other copy, delete it: its completions are then asked for again"
            )
        columns = parquet.load(path, Entry)
        place = len(self._tables)
        self._tables.append(columns.columns)
        finishes = columns["finish"].to_pylist()
        for row, (key, finish) in enumerate(zip(columns["id"].to_pylist(), finishes, strict=True)):
            if finish in SERVED:
                self._rows.setdefault(key, (place, row))
                self._fresh.pop(key, None)
            else:
                self._failures[finish] += 1

    def _remember(self, entry: Entry) -> None:
        if entry.finish not in SERVED:
            self._failures[entry.finish] += 1
        elif entry.id not in self._rows:
            self._fresh.setdefault(entry.id, entry)

    def _writer(self) -> BinaryIO:
        if self._own is None:
            self._journal.mkdir(parents=True, exist_ok=True)
            self._own = (self._journal / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl").open("ab")
            # Held until this process is gone: how others know that they may seal the journal.
            fcntl.flock(self._own, fcntl.LOCK_EX)
            files.sync(self._journal)
        return self._own

    def _pack(self, entries: Sequence[Entry]) -> Path | None:
        chosen: dict[str, Entry] = {}
        for entry in entries:
            known = chosen.get(entry.id)
            if entry.id not in self._rows and (known is None or known.finish not in SERVED):
                chosen[entry.id] = entry
        if not chosen:
            return None
        partial = self._packs / ".pack.partial"
        parquet.write(partial, Entry, chosen.values())
        path = self._packs / f"{hashlib.sha256(partial.read_bytes()).hexdigest()[:PACK_NAME]}.parquet"
        partial.replace(path)
        files.sync(self._packs)
        self._failures -= Counter(entry.finish for entry in entries)
        self._load(path)
        return path


def _claim(path: Path) -> int | None:
    """Lock a journal whose process is gone, and return the open file; None when its process is alive."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    # Another process may have sealed and deleted it since it was listed.
    if files.take(handle) and os.fstat(handle).st_nlink:
        return handle
    os.close(handle)
    return None


def _read_journal(path: Path) -> Iterator[Entry]:
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError
            yield from [Entry(*values) for values in json.loads(line)]
        except (ValueError, TypeError):
            # A process was killed, or is right now, while it wrote this line: the reply was not acknowledged.
            log.warning("%s, line %d is incomplete and was skipped", path, number)
