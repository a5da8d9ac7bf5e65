"""`reference`: a corrector that is a program. It sees the gold rationale and compares; it does not think.

Use it with the prompt `correct_reference` and `hint: rationale`, for questions that carry a gold rationale. It
finds the first step whose figures cannot be right (`lema.correctors.alignment`), names the kind of error, says why
with the figures, and writes the correction: the steps before the incorrect one as "...", then what is left of the
rationale, then the answer. So the answer of a correction is always the gold one; what can be wrong is the place of
the mistake, since words are not understood. It is free, instant and deterministic: for tests, for demonstrations,
and as the baseline that a model must beat. It is not a measure of what a model could do.

How often it finds the mistake: on real wrong paths on GSM8K in which teachers labelled the first wrong step
(eth-lre/verify-then-generate, 300 paths), the very step in 46 %, it or a neighbour in 73 %, of the 150 paths that
were kept aside while it was written, and in 56 % and 77 % of the 150 that it was written with. Where it differs
from the teachers, the step mostly computes rightly something that is not wanted. A single mistake planted in a gold
rationale, after which the path ends, it finds in 96 to 99 % of GSM8K and in over 99 % of `word_problems`.

The kinds of error:

    arithmetic slip      the equation is false
    wrong operation      the right numbers, another operation
    wrong operand        the right operation, another number
    missing quantity     a number that belongs in the computation is left out
    extra quantity       a number that does not belong is in
    unit error           right but for a factor of 60, 100, 1000 or 3600
    wrong equation       an equation in an unknown that no value of the problem solves
    unsupported number   a number that nothing in the question or the path gives
    missing step         the path stops before the end
    extra step           the path goes on after it has the answer
    wrong final answer   the steps reach the answer and the last line says another
    misread question     right arithmetic on something that is not wanted; all that is none of the above
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from lema.correctors.alignment import Misstep, Rationale, figures, first_fault, rationale, result
from lema.models.types import Completion, Model, Request, Worker, cpu_bound
from lema.recipe.params import Run
from lema.text.arithmetic import Equation, equations, evaluate
from lema.text.correction_format import ELLIPSIS, Parsed, write_correction
from lema.text.final_answer import answer_sentence
from lema.text.numbers import format_number, numbers, parse_number
from lema.text.steps import split_steps

_MESSAGE = re.compile(
    r"\s*<question>\s*(.*?)\s*</question>\s*<rationale>\s*(.*?)\s*</rationale>"
    r"\s*<gold>\s*(.*?)\s*</gold>\s*<path>\s*(.*?)\s*</path>\s*",
    re.DOTALL,
)
_STEP = re.compile(r"Step \d+: (.+)")
_OPERATIONS = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division", "^": "a power"}
_UNIT_FACTORS = tuple(map(Fraction, (60, 100, 1000, 3600)))


@cpu_bound
def reference(_model: Model, _run: Run) -> Worker:
    """A program that compares a path with the gold rationale; what it cannot answer becomes a failed completion."""
    return lambda requests: [_complete(request) for request in requests]


def correct(question: str, gold_steps: Sequence[str], gold: str, path: Sequence[str]) -> Parsed | None:
    """The correction of a wrong path, or None where nothing in it is at odds with the rationale.

    Raises ValueError when the gold answer is not a number.
    """
    answer = parse_number(gold)
    if answer is None:
        raise ValueError("the gold answer is not a number, and figures are all that it can compare")
    known = rationale(question, gold_steps, answer)
    fault = first_fault(path, known)
    if fault is None:
        return None
    kept = path[: fault.step]
    wanted = _wanted(fault, known, _there(kept, known))
    kind, explanation = _explain(fault, wanted, gold)
    solution = (*([ELLIPSIS] if kept else []), *_rest(kept, known), answer_sentence(gold))
    return Parsed(fault.step + 1, kind, explanation, solution)


def _complete(request: Request) -> Completion:
    last = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    found = _MESSAGE.fullmatch(last)
    if found is None:
        return _failed("`reference` reads only the prompt `correct_reference`, with `hint: rationale`")
    question, gold_text, gold, path_text = found.groups()
    steps = [_STEP.fullmatch(line.strip()) for line in path_text.splitlines()]
    if not gold_text:
        return _failed("the question has no gold rationale, and `reference` corrects from nothing else")
    if not steps or None in steps:
        return _failed("the path is not in numbered steps, one a line")
    try:
        correction = correct(question, split_steps(gold_text), gold, [step[1] for step in steps if step])
    except ValueError as error:
        return _failed(str(error))
    if correction is None:
        return _failed("no mistake found: every figure of the path, and its answer, fit the rationale")
    return Completion(write_correction(correction), "stop")


def _failed(error: str) -> Completion:
    return Completion("", "failed", error)


def _there(kept: Sequence[str], gold: Rationale) -> frozenset[Fraction]:
    """The values that the untouched steps have come to: what they compute, and what they say beyond the question."""
    said = {value for step in kept for value in figures(step)} - gold.given
    return frozenset(said | {result(equation) for step in kept for equation in equations(step)})


def _rest(kept: Sequence[str], gold: Rationale) -> list[str]:
    """The steps of the rationale that the untouched steps leave to be done, without those that they went around."""
    there = _there(kept, gold)
    done = [bool(line) and all(result(equation) in there for equation in line) for line in gold.equations]
    last = max((at for at, covered in enumerate(done) if covered), default=-1)
    rest = list(range(last + 1, len(done)))
    for at in range(last - 1, -1, -1):
        used = {abs(value) for later in rest for equation in gold.equations[later] for value in numbers(equation.left)}
        if not done[at] and used & {result(equation) for equation in gold.equations[at]}:
            rest.insert(0, at)
    return [gold.steps[at] for at in rest]


def _wanted(fault: Misstep, gold: Rationale, there: frozenset[Fraction]) -> Equation | None:
    """The equation of the rationale that the faulty one stands in for: it shares most numbers of those not yet done."""
    open_ = [equation for line in gold.equations for equation in line if result(equation) not in there]

    def likeness(equation: Equation) -> tuple[int, bool]:
        if fault.equation is None:
            return 0, False
        shared = set(_equation_operands(fault.equation)) & set(_equation_operands(equation))
        return len(shared), set(_signs(fault.equation)) == set(_signs(equation))

    return max(open_, key=likeness, default=None)


def _explain(fault: Misstep, wanted: Equation | None, gold: str) -> tuple[str, str]:
    """The kind of error, and why it is one, in a sentence or two."""
    here = f"Step {fault.step + 1}"
    needed = f" What is needed is {_shown_equation(wanted)}." if wanted else ""
    value = format_number(fault.value) if fault.value is not None else "nothing that can be read"
    equation = fault.equation
    if fault.kind == "missing":
        left = f": {_shown_equation(wanted)} is still to be worked out" if wanted else ""
        return "missing step", f"{here} ends with {value}, but the question asks for more{left}."
    if fault.kind == "final":
        return "wrong final answer", f"The steps come to {gold}, but {here} gives {value} as the answer."
    if fault.kind == "extra" and equation:
        return (
            "extra step",
            f"The answer, {gold}, is reached before {here}, which goes on with {_shown_equation(equation)}.",
        )
    if fault.kind == "unknown" and equation:
        return "wrong equation", f"{here} leads to {equation.text}, which no value of the problem solves.{needed}"
    if equation is None:
        return "unsupported number", f"{here} brings in {value}, which neither the question nor a step gives.{needed}"
    if fault.kind == "slip":
        return "arithmetic slip", _slip(here, equation, wanted)
    if wanted is None:
        return "extra step", f"{here} works out {_shown_equation(equation)}, which the question does not ask for."
    return _compare(here, equation, wanted)


def _slip(here: str, equation: Equation, wanted: Equation | None) -> str:
    exact = evaluate(equation.left) or Fraction(0)
    other = wanted is not None and result(wanted) != abs(exact)
    beyond = f" And what is needed is {_shown_equation(wanted)}." if wanted and other else ""
    return f"{here} says {_shown_equation(equation)}, but {equation.left} is {format_number(exact)}.{beyond}"


def _compare(here: str, equation: Equation, wanted: Equation) -> tuple[str, str]:
    """A true equation beside the one that is wanted instead."""
    own, other = _equation_operands(equation), _equation_operands(wanted)
    signs, other_signs = _signs(equation), _signs(wanted)
    says = f"{here} works out {_shown_equation(equation)}, but what is needed is {_shown_equation(wanted)}"
    more, less = _without(own, other), _without(other, own)
    large, small = sorted((result(equation), result(wanted)), reverse=True)
    if not more and not less:
        way = "the numbers are right and the order is not"
        if set(signs) != set(other_signs):
            way = f"it takes {_named(signs)} where {_named(other_signs)} belongs"
        return "wrong operation", f"{says}: {way}."
    if small and large / small in _UNIT_FACTORS:
        return (
            "unit error",
            f"{says}: the two differ by a factor of {format_number(large / small)}, so units are mixed up.",
        )
    if len(more) < len(own) and sorted(signs) == sorted(other_signs) and len(more) == len(less):
        return "wrong operand", f"{says}: it uses {_listed(more)} instead of {_listed(less)}."
    if not more:
        return "missing quantity", f"{says}: it leaves out {_listed(less)}."
    if not less:
        return "extra quantity", f"{says}: {_listed(more)} does not belong in it."
    return "misread question", f"{says}."


def _shown_equation(equation: Equation | None) -> str:
    return " ".join(equation.text.split()) if equation else ""


def _signs(equation: Equation) -> list[str]:
    return re.findall(r"[-+*/^]", equation.left.replace("**", "^"))


def _equation_operands(equation: Equation) -> list[Fraction]:
    return [value for value in map(evaluate, re.findall(r"[\d.]+%?", equation.left)) if value is not None]


def _named(signs: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(_OPERATIONS[sign] for sign in signs))


def _without(values: Sequence[Fraction], others: Sequence[Fraction]) -> list[Fraction]:
    rest = list(values)
    for other in others:
        if other in rest:
            rest.remove(other)
    return rest


def _listed(values: Sequence[Fraction]) -> str:
    return " and ".join(format_number(value) for value in values)
