"""Keys in little memory."""

import hashlib
import random

import numpy as np
import pytest

from lema.completions import index
from lema.completions.index import Index


def name(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def test_keys_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RECENT", 300)
    draw, keys, done = random.Random(1), Index(), 0
    numbers = [draw.randrange(4000) for _ in range(10_000)]
    keys.extend(bytes.fromhex(name(0) + name(1) + name(0)), np.array([7, 8, 9]))
    seen = {0: 7, 1: 8}
    while done < len(numbers):
        block = numbers[done:][: draw.randrange(1, 500)]
        new = [n not in seen and n not in block[:at] for at, n in enumerate(block)]
        assert keys.add([name(n) for n in block], done) == new
        seen = dict.fromkeys(block, done) | seen
        done += len(block)
    assert keys.find([name(n) for n in range(4000)]) == [seen.get(n, -1) for n in range(4000)]
    assert keys.count() == len(seen)


@pytest.mark.parametrize("key", ["", "ab", "x" * 64, "ab" * 33])
def test_other_names_are_no_keys(key: str) -> None:
    with pytest.raises(ValueError, match=r"SHA-256|hexadecimal"):
        Index().find(["ab" * 32, key])


def test_numbers_of_keys_with_the_same_end() -> None:
    """The last eight bytes are looked up first, so keys that share them are the rare case."""
    keys, names = Index(), ["00" * 16 + f"{n:02x}" * 8 + "ab" * 8 for n in range(0, 250, 5)]
    for at in range(0, len(names), 10):
        keys.extend(b"".join(map(bytes.fromhex, names[at : at + 10])), np.arange(at, at + 10))
    assert keys.find(names) == list(range(len(names)))
    others = ["00" * 16 + f"{n:02x}" * 8 + "ab" * 8 for n in (1, 255)]
    assert keys.find([*others, "00" * 32, "ff" * 32]) == [-1] * 4
