"""Keys in little memory."""

import hashlib
import random

import numpy as np
import pytest

from lema.completions.index import Index, Keys


def name(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def test_keys_are_kept_in_order_and_told_apart() -> None:
    draw = random.Random(1)
    numbers = [draw.randrange(4000) for _ in range(10_000)]
    keys, seen = Keys(), set[int]()
    while len(keys) < len(numbers):
        block = numbers[len(keys) :][: draw.randrange(1, 500)]
        new = [n not in seen and n not in block[:at] for at, n in enumerate(block)]
        assert keys.extend([name(n) for n in block]) == new
        seen.update(block)
    assert list(keys) == [name(n) for n in numbers]
    assert (len(keys), keys.unique) == (10_000, len(seen))


def test_keys_with_the_same_beginning_are_two() -> None:
    keys = Keys()
    assert [keys.add("ab" * 31 + end) for end in ("00", "01", "00")] == [True, True, False]


@pytest.mark.parametrize("key", ["", "ab", "x" * 64, "ab" * 33])
def test_other_names_are_no_keys(key: str) -> None:
    with pytest.raises(ValueError, match=r"SHA-256|hexadecimal"):
        Keys().add(key)
    with pytest.raises(ValueError, match=r"SHA-256|hexadecimal"):
        Index().find(["ab" * 32, key])


def test_numbers_of_keys_with_the_same_beginning() -> None:
    index = Index()
    ends = [f"{end:02x}" for end in range(0, 250, 5)]
    index.extend([(b"".join(bytes.fromhex("ab" * 31 + end) for end in ends), np.arange(len(ends)))])
    assert index.find(["ab" * 31 + end for end in ends]) == list(range(len(ends)))
    assert index.find(["ab" * 31 + "01", "ab" * 31 + "ff", "00" * 32, "ff" * 32]) == [-1] * 4
