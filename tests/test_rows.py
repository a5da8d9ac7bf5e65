"""Rows are values."""

import pickle
from dataclasses import replace

import pytest

from lema.rows import Message


def test_rows_are_compared_kept_and_sent_by_what_is_in_them() -> None:
    one, same, other = Message("user", "2 + 3"), Message("user", "2 + 3"), Message("user", "2 + 4")
    assert one == same != other
    assert {one, same, other} == {one, other}
    assert pickle.loads(pickle.dumps(one)) == one
    assert replace(one, content="2 + 4") == other


def test_a_row_has_its_fields_and_no_others() -> None:
    with pytest.raises(AttributeError):
        Message("user", "2 + 3").text = "2 + 4"  # type: ignore[attr-defined]
