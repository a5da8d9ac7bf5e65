"""Fields of raw records, and what to say of records without them."""

from collections.abc import Mapping
from typing import Any


def text(record: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that holds a text or number, as text; ValueError where none does."""
    for name in names:
        value = record.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()
    fields = ", ".join(sorted(map(str, record))) or "nothing"
    raise ValueError(f"needs a text in `{names[0]}`; the record has: {fields}")


def joined(record: Mapping[str, Any], *names: str | tuple[str, ...]) -> str:
    """A story and its question as one text, with a full stop or comma between them where the story ends without.

    A story that ends in "If ..." or the like is half a sentence of which the question is the other half.
    """
    body, question = (text(record, *((name,) if isinstance(name, str) else name)) for name in names)
    if body[-1] in ".?!,;:":
        return f"{body} {question}"
    last = body.replace("! ", ". ").replace("? ", ". ").rpartition(". ")[2]
    half = last.lower().startswith(("if ", "when ", "after ", "given ", "since ", "because "))
    return f"{body}{',' if half else '.'} {question[0].lower() + question[1:] if half else question}"
