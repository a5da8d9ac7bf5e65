"""Cache keys in little memory, as bytes and not as Python objects: a hash table to deduplicate, and a sorted index."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

KEY_BYTES = 32  # bytes: a SHA-256
RECENT = 8192  # keys that wait in a dictionary until they are merged into the sorted arrays


def key_bytes(key: str) -> bytes:
    """The bytes of a key of 64 hexadecimal digits. Raises ValueError for any other text."""
    value = bytes.fromhex(key)
    if len(value) != KEY_BYTES:
        raise ValueError(f"{key!r} is no SHA-256")
    return value


def keys_bytes(keys: Sequence[str]) -> bytes:
    """The bytes of keys, one after the other. Raises ValueError as `key_bytes` does."""
    values = bytes.fromhex("".join(keys))
    if len(values) != KEY_BYTES * len(keys):
        raise ValueError("some of the keys are no SHA-256")
    return values


class Keys:
    """Keys in the order in which they were added, duplicates too, and which of them were new: 40 to 50 bytes each.

    A hash table with open addressing and linear probing, whose slots hold positions in the list of keys.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._slots = array("I", bytes(4 * 1024))  # position of a key from 1; 0 is an empty slot
        self.unique = 0

    def __len__(self) -> int:
        return len(self._keys) // KEY_BYTES

    def __iter__(self) -> Iterator[str]:
        return (self._keys[at : at + KEY_BYTES].hex() for at in range(0, len(self._keys), KEY_BYTES))

    def add(self, key: str) -> bool:
        """Append a key; False when it was there before. Raises ValueError for a name that is no SHA-256."""
        return self.extend([key])[0]

    def extend(self, keys: Sequence[str]) -> list[bool]:
        """`add` for many at once, in their order."""
        values, position, new = keys_bytes(keys), len(self), list[bool]()
        self._keys += values
        while 3 * (self.unique + len(keys)) > 2 * len(self._slots):
            self._grow()
        slots, known, mask = self._slots, self._keys, len(self._slots) - 1
        for at, slot in zip(range(0, len(values), KEY_BYTES), _home_slots(values, mask), strict=True):
            position += 1
            while there := slots[slot]:
                if known[(there - 1) * KEY_BYTES : there * KEY_BYTES] == values[at : at + KEY_BYTES]:
                    break
                slot = (slot + 1) & mask
            else:
                slots[slot] = position
            new.append(not there)
        self.unique += sum(new)
        return new

    def _grow(self) -> None:
        positions = [position for position in self._slots if position]
        slots = self._slots = array("I", bytes(4 * 4 * len(self._slots)))
        mask = len(slots) - 1
        home_slots = _home_slots(self._keys, mask)
        for position in positions:
            slot = home_slots[position - 1]
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = position


def _home_slots(keys: bytes | bytearray, mask: int) -> "array[int]":
    """Of each key the slot where probing begins."""
    return array("Q", (np.frombuffer(keys, "<u8")[:: KEY_BYTES // 8] & np.uint64(mask)).tobytes())


class Index:
    """Numbers by key, 24 bytes each; the first number that a key was given is the one that stays.

    Of a key the last 128 bits are kept, by which no two will ever agree. Binary search in sorted arrays of numpy, and a
    small dictionary of what came since they were last merged.
    """

    def __init__(self) -> None:
        self._heads, self._tails = _halves(b"")
        self._numbers = np.empty(0, np.int64)
        self._recent: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._heads) + len(self._recent)

    def add(self, keys: Sequence[str], number: int) -> None:
        """Give keys a number, unless they have one. Raises ValueError for a name that is no SHA-256."""
        for key, known in zip(keys, self.find(keys), strict=True):
            if known < 0:
                self._recent.setdefault(key_bytes(key), number)
        if len(self._recent) >= RECENT:
            self._merge_recent()

    def extend(self, keys: bytes, numbers: Any) -> None:
        """`add` for many at once: keys one after the other, and their numbers (int64)."""
        self._merge_recent()
        heads, tails = _halves(keys)
        order = np.lexsort((tails, heads))  # stable
        heads, tails, numbers = heads[order], tails[order], numbers[order]
        new = np.ones(len(heads), bool)
        new[1:] = (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
        new &= self._find(heads, tails) < 0
        places = np.searchsorted(self._heads, heads[new])
        self._heads = np.insert(self._heads, places, heads[new])
        self._tails = np.insert(self._tails, places, tails[new])
        self._numbers = np.insert(self._numbers, places, numbers[new])

    def find(self, keys: Sequence[str]) -> list[int]:
        """The number of each key, -1 for those that have none."""
        found: list[int] = self._find(*_halves(keys_bytes(keys))).tolist()
        if self._recent:
            pairs = zip(keys, found, strict=True)
            found = [self._recent.get(key_bytes(key), -1) if number < 0 else number for key, number in pairs]
        return found

    def count(self, least: int) -> int:
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

    def _merge_recent(self) -> None:
        if self._recent:
            recent, self._recent = self._recent, {}
            self.extend(b"".join(recent), np.fromiter(recent.values(), np.int64, len(recent)))


def _halves(keys: bytes) -> tuple[Any, Any]:
    """The last eight bytes of keys as numbers, and the eight before them."""
    words = np.frombuffer(keys, "<u8").reshape(-1, KEY_BYTES // 8)
    return words[:, 3].copy(), words[:, 2].copy()
