"""Nothing false is taught: every equation in the corrected solution holds, in numbers and in units."""

import re
from collections.abc import Iterable, Iterator

from lema.filters import Candidate, Finding
from lema.text.arithmetic import Equation, equations, evaluate, holds
from lema.text.units import ANY_UNIT, FAMILY, SCALES

_TERM = rf"(?:\$\s?([\d.,]+)|([\d.,]+)\s*({ANY_UNIT})s?\b(?!\s*[/\w]))"
_SUM = re.compile(rf"{_TERM}(?:\s*[-+]\s*{_TERM})+", re.IGNORECASE)
_ONE = re.compile(_TERM, re.IGNORECASE)


def arithmetic(candidates: Iterable[Candidate]) -> Iterator[Finding]:
    """Measures equations of the solution that do not hold; drops any, also "5 hours + 3 hours = 8 minutes".

    Decimals may be rounded as shown. Units count only in sums, and only where every number has one that is known:
    "3 boys + 4 girls = 7 children" holds. The explanation may quote a wrong equation. A solution without equations
    has nothing to measure.
    """
    for candidate in candidates:
        found = [(line, equation) for line in candidate.solution for equation in equations(line)]
        wrong = [says for line, equation in found if (says := _equation_fault(line, equation))]
        more = f", {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield Finding(len(wrong) if found else None, f"{wrong[0]}{more}" if wrong else None)


def _equation_fault(line: str, equation: Equation) -> str | None:
    if not holds(equation):
        return f"{equation.text} does not hold"
    left, _, right = equation.text.partition("=")
    # The equation ends with its number; a unit that it could not be converted by stands behind.
    total = _ONE.match((right + line[equation.end :]).strip())
    if total is None or not _SUM.fullmatch(left.strip()) or not re.fullmatch(r"[\d.]+", equation.right):
        return None
    terms = [*_ONE.finditer(left), total]
    units = [(term[3] or "dollar").lower() for term in terms]
    families = dict.fromkeys(FAMILY[unit] for unit in units)
    if len(families) > 1:
        return f"{equation.text} mixes {' and '.join(families)}"
    values = [f"{(term[1] or term[2]).strip('.,')} * {SCALES[unit]}" for term, unit in zip(terms, units, strict=True)]
    signs = re.findall(r"(?<=[\w.])\s*([-+])", left)
    summed = evaluate(values[0] + "".join(f" {sign} {one}" for sign, one in zip(signs, values[1:-1], strict=True)))
    shown = evaluate(values[-1])
    # Rounding is `holds`' affair; 8 minutes for 8 hours is no rounding.
    if len(set(units)) == 1 or summed is None or shown is None or abs(summed - shown) <= abs(shown) / 50:
        return None
    return f"{equation.text} does not hold in its units"
