"""Keys of requests in little memory: 32 bytes each, not Python objects."""

from array import array
from collections.abc import Iterator

KEY = 32  # bytes: a SHA-256


class Keys:
    """Keys in the order in which they were added, and which of them were new: 40 to 50 bytes each.

    A hash table by hand: it holds places in the list of keys, so that it needs no copy of them.
    """

    def __init__(self) -> None:
        self._keys = bytearray()
        self._slots = array("I", bytes(4 * 1024))  # place of a key from 1; 0 is an empty slot
        self.unique = 0

    def __len__(self) -> int:
        return len(self._keys) // KEY

    def __iter__(self) -> Iterator[str]:
        return (self._keys[at : at + KEY].hex() for at in range(0, len(self._keys), KEY))

    def add(self, key: str) -> bool:
        """Append a key of 64 hexadecimal digits; False when it was there before."""
        raw = bytes.fromhex(key)
        if len(raw) != KEY:
            raise ValueError(f"{key!r} is no SHA-256")
        self._keys += raw
        if 3 * self.unique > 2 * len(self._slots):
            self._grow()
        slot = self._slot(raw)
        if self._slots[slot]:
            return False
        self._slots[slot] = len(self)
        self.unique += 1
        return True

    def _slot(self, raw: bytes) -> int:
        """Where the key is, or the empty slot where it belongs."""
        mask = len(self._slots) - 1
        slot = int.from_bytes(raw[:8]) & mask
        while place := self._slots[slot]:
            if self._keys[(place - 1) * KEY : place * KEY] == raw:
                break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        places = [place for place in self._slots if place]
        self._slots = array("I", bytes(4 * 4 * len(self._slots)))
        for place in places:
            self._slots[self._slot(bytes(self._keys[(place - 1) * KEY : place * KEY]))] = place
