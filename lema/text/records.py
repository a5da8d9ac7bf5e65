"""Text fields of raw records: of data sets, of imported files and of test questions to keep away from."""

from collections.abc import Mapping
from typing import Any

from lema.errors import RunError


def text_field(record: Mapping[str, Any], *names: str, where: str | None = None) -> str:
    """The first of some fields that holds a text or a number, as text without white space around it.

    Where none does, raises ValueError with the fields that the record has; RunError, beginning with `where`, when that
    is given: the file and row that a user can look up.

    >>> text_field({"answer": 12}, "Answer", "answer")
    '12'
    """
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and (text := str(value).strip()):
            return text
    fields = ", ".join(sorted(map(str, record))) or "nothing"
    message = f"needs a text in `{names[0]}`; the record has: {fields}"
    raise ValueError(message) if where is None else RunError(f"{where}: {message}")
