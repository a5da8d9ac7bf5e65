"""Text in Markdown that means itself."""

import re
from collections.abc import Iterable, Sequence


def escaped(value: object) -> str:
    """One line for a paragraph or a table cell: nothing in it is markup or HTML."""
    line = " ".join(str(value).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~$])", r"\\\1", line)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, numbers with thousands apart and on the right."""
    lines = [list(row) for row in rows]
    right = [all(isinstance(row[at], int) for row in lines) and bool(lines) for at in range(len(header))]
    cells = [[f"{cell:,}" if isinstance(cell, int) else escaped(cell) for cell in row] for row in lines]
    rule = "|".join("--:" if yes else "---" for yes in right)
    return [f"| {' | '.join(header)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in cells)]
