"""Cache keys in little memory, as bytes and not as Python objects."""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

KEY_BYTES = 32  # a SHA-256
KEY_TYPE = f"S{KEY_BYTES}"  # of numpy: texts of a fixed width compare as their bytes do, zeros at the end too
RECENT = 8192  # keys, or as many as a sixteenth of all, that wait in a dictionary until they are merged


class Index:
    """Numbers by key, 24 bytes each; the first number that a key was given is the one that stays.

    Of a key the last 128 bits are kept, by which no two will ever agree. Binary search in sorted arrays of numpy, and a
    small dictionary of what came since they were last merged.
    """

    def __init__(self) -> None:
        self._heads = self._tails = np.empty(0, np.uint64)  # the last eight bytes of keys, and the eight before them
        self._numbers = np.empty(0, np.int64)
        self._recent: dict[str, int] = {}

    def add(self, keys: Sequence[str], number: int) -> list[bool]:
        """Give keys a number, unless they have one; tells which had none. Raises ValueError for a name that is no
        SHA-256."""
        new, recent = list[bool](), self._recent
        for key, known in zip(keys, self.find(keys), strict=True):
            new.append(known < 0 and key not in recent)
            if new[-1]:
                recent[key] = number
        if len(recent) >= max(RECENT, len(self._heads) // 16):
            self.extend(b"", np.empty(0, np.int64))
        return new

    def extend(self, keys: bytes, numbers: Any) -> None:
        """`add` for many at once: keys one after the other, and their numbers (int64)."""
        recent, self._recent = self._recent, {}
        keys = bytes.fromhex("".join(recent)) + keys
        numbers = np.concatenate([np.fromiter(recent.values(), np.int64, len(recent)), numbers])
        words = np.frombuffer(keys, "<u8").reshape(-1, KEY_BYTES // 8)
        order = np.lexsort((words[:, 2], words[:, 3]))  # stable
        heads, tails, numbers = words[order, 3], words[order, 2], numbers[order]
        new = self._find(heads, tails) < 0
        new[1:] &= (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
        places = np.searchsorted(self._heads, heads[new])
        self._heads = np.insert(self._heads, places, heads[new])
        self._tails = np.insert(self._tails, places, tails[new])
        self._numbers = np.insert(self._numbers, places, numbers[new])

    def find(self, keys: Sequence[str]) -> list[int]:
        """The number of each key, -1 for those that have none. Raises ValueError as `add` does."""
        joined = bytes.fromhex("".join(keys))
        if len(joined) != KEY_BYTES * len(keys):
            raise ValueError("some of the keys are no SHA-256")
        words = np.frombuffer(joined, "<u8").reshape(-1, KEY_BYTES // 8)
        found: list[int] = self._find(words[:, 3], words[:, 2]).tolist()
        return list(map(max, found, map(self._recent.get, keys, repeat(-1)))) if self._recent else found

    def count(self, least: int = 0) -> int:
        """How many keys have this number or a higher one."""
        return int((self._numbers >= least).sum()) + sum(number >= least for number in self._recent.values())

    def _find(self, heads: Any, tails: Any) -> Any:
        if not len(self._heads):
            return np.full(len(heads), -1)
        last = len(self._heads) - 1
        at = np.minimum(np.searchsorted(self._heads, heads), last)
        while (other := (self._heads[at] == heads) & (self._tails[at] != tails) & (at < last)).any():
            at[other] += 1
        return np.where((self._heads[at] == heads) & (self._tails[at] == tails), self._numbers[at], -1)
