"""Nothing false is taught: every equation in the corrected solution holds."""

from collections.abc import Iterable, Iterator

from lema.arithmetic import equations, holds
from lema.filters import Candidate
from lema.filters._text import solution


def arithmetic(candidates: Iterable[Candidate]) -> Iterator[str | None]:
    """Drop corrections whose solution has an equation that does not hold.

    Decimals may be rounded as shown. The explanation may quote a wrong equation.
    """
    for candidate in candidates:
        found = [equation for line in solution(candidate) for equation in equations(line)]
        wrong = [equation.text for equation in found if not holds(equation)]
        others = f", {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield f"{wrong[0]} does not hold{others}" if wrong else None
