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


def test_numbers_of_keys_with_the_same_end() -> None:
    """The last eight bytes are looked up first, so keys that share them are the rare case."""
    index, names = Index(), ["00" * 16 + f"{n:02x}" * 8 + "ab" * 8 for n in range(0, 250, 5)]
    for at in range(0, len(names), 10):
        index.extend(b"".join(map(bytes.fromhex, names[at : at + 10])), np.arange(at, at + 10))
    assert index.find(names) == list(range(len(names)))
    others = ["00" * 16 + f"{n:02x}" * 8 + "ab" * 8 for n in (1, 255)]
    assert index.find([*others, "00" * 32, "ff" * 32]) == [-1] * 4


def test_the_first_number_of_a_key_stays() -> None:
    draw, index, first = random.Random(1), Index(), dict[str, int]()
    for number in range(60):
        names = [name(draw.randrange(30_000)) for _ in range(700)]
        if number % 3:
            index.add(names, number)
        else:
            index.extend(b"".join(map(bytes.fromhex, names)), np.full(len(names), number))
        for key in names:
            first.setdefault(key, number)
    assert len(index) == len(first)
    assert index.find(list(first)) == list(first.values())
    assert index.find([name(n) for n in range(30_000, 30_100)]) == [-1] * 100
    assert index.count(30) == sum(number >= 30 for number in first.values())
