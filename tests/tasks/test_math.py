from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema.tasks import Reading, Undecided
from lema.tasks.math import equal_math, extract_math, math

# What models write, and the answer in it.
TEXTS = [
    ("Step 1: 3 + 4 = 7\nStep 2: The answer is 7.", "7"), ("So the answer is $\\frac{3}{4}$.", "\\frac{3}{4}"),
    ("The final answer is: $\\boxed{12}$.", "12"), ("**The answer is:** $x^2 + 1$", "x^2 + 1"),
    ("The answer is **12**.", "12"), ("The answer is\n\\[ \\boxed{\\frac{1}{2}} \\]", "\\frac{1}{2}"),
    ("The answer is \\(2\\sqrt{3}\\).", "2\\sqrt{3}"), ("The answer is $(1, 2)$, because both hold.", "(1, 2)"),
    ("The answer is $x = 2$ and $x = 3$.", "x = 2, x = 3"), ("The answer is $5$ square inches.", "5"),
    ("The answer is 12.5.", "12.5"), ("The answer is $12.5$. We are done.", "12.5"),
    ("The answer is 34\\text{ sq. units}.", "34\\text{ sq. units}"), ("The answer is $50$%.", "50\\%"),
    ("The answer is even.", "even"), ("The answer is 7. No, wait. The answer is 8.", "8"),
    ("The answer is yes, but how many? Thus $\\boxed{40}$.", "40"),
    ("We get $\\boxed{1}$ and then $\\boxed{\\frac{\\sqrt{2}}{2}}$.", "\\frac{\\sqrt{2}}{2}"),
    ("Hence $\\fbox{7}$.", "7"), ("Hence $\\boxed 7$.", "7"),
    ("Hence $\\boxed{\\text{(A) } \\{1, 2\\}}$.", "\\text{(A) } \\{1, 2\\}"),
    ("Hence $\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}$.", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}"),
    ("Hence $\\boxed{3}$. But $\\boxed{4", "3"), ("# Solution\n\nFinal Answer: $\\frac{5}{6}$", "\\frac{5}{6}"),
    ("Answer: 12", "12"), ("The answer is 4.\n\nQuestion: What is 3 + 3?\nAnswer: The answer is 6.", "4"),
    ("Hence $\\boxed{4}$.\n\n### Question 2: next?\nHence $\\boxed{9}$.", "4"),
    ("Hence $\\boxed{5}$. I am sure that the answer is correct.", "5"),
    ("The answer is 5. Since 5 > 0, the answer is valid.", "5"),
    ("<think>The answer is 4?</think>The answer is 5.", "5"), ("The answer is 5.<|im_end|>\nThe answer is 6.", "5"),
    ("There are 12 ways.", None), ("The answer is", None), ("The answer is .", None), ("Hence $\\boxed{}$.", None),
    ("", None), ("The answer is " + "as we have seen above " * 30, None),
]  # fmt: skip

# A column of hard cases: answer, gold, and whether they are equal; None where nobody can tell.
PAIRS: list[tuple[str, str, bool | None]] = [
    # numbers
    ("12", "12", True), ("12.0", "12", True), ("12.", "12", True), ("1,234", "1234", True), ("1{,}234", "1234", True),
    ("1,\\!234", "1,234", True), ("10\\,000", "10000", True), ("-5", "5", False), ("−5", "-5", True),
    ("+5", "5", True), ("0.5", "\\frac{1}{2}", True), ("1/2", "\\frac12", True), ("\\dfrac{2}{4}", "\\tfrac12", True),
    ("\\frac 12", ".5", True), ("0.3333333", "\\frac13", True), ("0.33", "\\frac13", False), ("3.14", "\\pi", False),
    ("12", "21", False), ("2\\frac{1}{2}", "\\frac{5}{2}", True), ("2 1/2", "2.5", True),
    ("-2\\frac{1}{2}", "-\\frac{5}{2}", True), ("\\frac{1}{0}", "0", False), ("twelve", "12", True),
    ("Saturday", "12", False), ("no solution", "12", False), ("1.5e-3", "0.0015", True),
    ("1 234 567", "1234567", True), ("120,135", "135,120", True), ("0.0000001", "0", False),
    ("1.6\\times 10^{-19}", "9.1\\times 10^{-31}", False),
    # dress
    ("$\\$12.50$", "12.5", True), ("12\\text{ cm}^2", "12", True), ("12 \\mbox{ inches}", "12", True),
    ("12 apples", "12", True), ("90^\\circ", "90", True), ("90^{\\circ}", "90^\\circ", True), ("90°", "90", True),
    ("90 degrees", "90", True), ("50\\%", "50", True), ("50", "50\\%", True), ("0.5", "50\\%", True),
    ("50%", "0.5", True), ("5\\%", "50", False), ("\\left(1,2\\right)", "(1,2)", True), ("\\(7\\)", "7", True),
    ("**7**", "7", True), ("\\text{7}", "7", True),
    # letters and words
    ("x=5", "5", True), ("5", "x = 5", True), ("x=5", "y=5", False), ("f(x)=2x", "2x", True),
    ("x \\in [1,2]", "[1,2]", True), ("(A)", "\\text{(A)}", True), ("A", "\\textbf{(A)}", True),
    ("B", "\\text{(A)}", False), ("A \\text{ or } B", "A", None), ("even", "\\text{even}", True),
    ("Even", "\\text{even}", True), ("odd", "\\text{even}", False), ("on Tuesday", "\\text{Tuesday}", None),
    # algebra
    ("x^2+1", "1 + x^{2}", True), ("(x+1)(x+2)", "x^2+3x+2", True), ("(x+1)^2", "x^2+1", False), ("2x", "2y", False),
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", True), ("sqrt(3)/2", "\\frac{\\sqrt{3}}{2}", True),
    ("√12", "2\\sqrt{3}", True), ("\\sqrt3", "\\sqrt{3}", True), ("\\sqrt{2}", "\\sqrt{3}", False),
    ("π/4", "\\frac{\\pi}{4}", True), ("2pi", "2\\pi", True), ("3+4i", "4i+3", True), ("3-4i", "3+4i", False),
    ("2^{10}", "1024", True), ("y=2x+1", "2x-y+1=0", True), ("\\sin^2 x", "1-\\cos^2 x", True),
    ("2 \\cdot 3^2", "18", True), ("5!", "120", True), ("\\binom{5}{2}", "10", True),
    ("1 \\pm \\sqrt{19}", "1+\\sqrt{19}, 1-\\sqrt{19}", True), ("\\pm 3", "3,-3", True), ("\\pm 3", "3", False),
    ("ln 2", "\\ln 2", True), ("\\text{arcsin}\\frac13", "\\arcsin\\frac13", True), ("alpha+1", "\\alpha+1", True),
    ("i^2", "-1", True), ("\\frac{1}{i}", "-i", True), ("(1+i)(1-i)", "2", True), ("2i", "2", False),
    ("\\sin 30^\\circ", "\\frac12", True), ("3 \\pmod{7}", "3", True), ("x\\equiv 3\\pmod 7", "4", False),
    # lists, tuples, intervals, sets, matrices
    ("2,1", "1,2", True), ("2 and 1", "1,2", True), ("x=1 or x=2", "1, 2", True), ("1,2,3", "1,2", False),
    ("1", "1,2", False), ("\\{2,1\\}", "1,2", True), ("\\{5\\}", "5", True), ("(2,1)", "(1,2)", False),
    ("1,2", "(1,2)", True), ("(0.5, 2)", "(\\frac12,2)", True), ("[1,2)", "(1,2)", False), ("[1,2]", "[1, 2]", True),
    ("[1,2]", "[1,3]", False), ("x \\ge 4", "[4,\\infty)", True), ("4 \\le x", "x \\geq 4", True),
    ("x > 4", "[4,\\infty)", False), ("(-∞, 0)", "(-\\infty,0)", True), ("(0,1)\\cup(2,3)", "(2,3) \\cup (0,1)", True),
    ("(0,1)\\cup(2,3)", "(0,1)\\cup(2,4)", False),
    ("\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", True),
    ("\\begin{pmatrix}1&2\\\\3&5\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", False),
    ("\\begin{pmatrix}1&2&3&4\\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", False),
    ("\\begin{pmatrix}0.5\\\\2\\end{pmatrix}", "\\begin{pmatrix} \\frac12 \\\\ 2 \\end{pmatrix}", True),
    ("(1,2)", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", True),
    ("45,135,225", "45^\\circ, 135^\\circ, 225^\\circ", True),
    # other bases, ratios
    ("2516", "2516_8", True), ("2516_{8}", "2516_8", True), ("2516_9", "2516_8", False), ("1:2", "1:2", True),
    ("1:2", "1:3", False), ("10:30 AM", "10:30", True), ("10:30 AM", "10:30 PM", False),
    ("1.2\\times10^{24}", "1200000000000000000000000", True),
    # words around
    ("approximately 3.14", "3.14", True), ("about $5$", "5", True), ("\\frac{3}{4} of the pie", "\\frac34", True),
    ("1, 2, and 3", "1,2,3", True), ("1,2,\\text{ and }3", "1,2,3", True), ("5\\text{ and }-5", "\\pm 5", True),
    ("no solution", "\\emptyset", None), ("\\{\\}", "\\emptyset", True), ("\\{(1,2)\\}", "(1,2)", True),
    ("5 is the number we want", "5", None), ("12\\text{ m}", "12", True), ("none", "0", None),
    ("Saturday", "x+1", False),
    # what cannot be read
    ("\\frac{1}{", "2", None), ("", "2", None), ("all real numbers", "(-\\infty,\\infty)", None),
    ("__import__('os').system('touch pwned')", "2", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), TEXTS)
def test_the_answer_that_a_text_states_last(text: str, answer: str | None) -> None:
    assert extract_math(text) == answer


@pytest.mark.parametrize(("answer", "gold", "same"), PAIRS)
def test_equality(answer: str, gold: str, same: bool | None) -> None:
    found = equal_math(answer, gold)
    assert (None if isinstance(found, Undecided) else found) is same
    stated = extract_math(f"So we are done. The answer is ${answer}$.")
    if same is not None and "$" not in answer and "*" not in answer and "(\\" not in answer:
        assert stated is not None
        assert equal_math(stated, gold) is same


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**4))
def test_a_fraction_equals_itself_in_every_form(over: int, under: int) -> None:
    sign = "-" if over < 0 else ""
    latex = f"{sign}\\frac{{{abs(over)}}}{{{under}}}"
    for form in (latex, f"{over}/{under}", f"{sign}\\dfrac{{{3 * abs(over)}}}{{{3 * under}}}", f"x = {over}/{under}"):
        assert equal_math(form, latex) is True
    assert equal_math(f"{over + under}/{under}", latex) is False


@given(st.text(alphabet="x12\\{}[](),.=<>$^_ frac+-abπ", max_size=40))
def test_no_text_breaks_extraction(text: str) -> None:
    found = extract_math(f"The answer is {text}")
    assert found is None or found.strip()


@pytest.mark.parametrize("why", ["unreadable", "timeout"])
@pytest.mark.parametrize(
    ("answer", "gold"),
    [("(1,x+1)", "(1,y)"), ("1,x+1", "y,1"), ("y+1,x+1", "x,y"), ("(0,x)\\cup(1,2)", "(1,2)\\cup(0,y)")],
)
def test_an_open_item_leaves_the_whole_open(monkeypatch: pytest.MonkeyPatch, answer: str, gold: str, why: str) -> None:
    monkeypatch.setattr("lema.tasks.math.equality.compare", lambda one, other: why)
    assert equal_math(answer, gold) is (Undecided.UNPARSED if why == "unreadable" else Undecided.TIMEOUT)
    if why == "unreadable":
        assert equal_math(f"({answer},1)", f"({gold},2)") is False


PIECES = ["x", "12", "\\frac", "\\sqrt", "{", "}", "(", ")", "[", "\\{", "\\}", ",", "=", "\\pm", "\\cup", "\\text{ and }", "%", "_8", " "]  # fmt: skip  # noqa: E501
MESS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(MESS, MESS)
def test_no_answer_breaks_equality(answer: str, gold: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lema.tasks.math.equality.compare", lambda one, other: "unreadable")
        found = equal_math(answer, gold)
        assert found in (True, False, Undecided.UNPARSED)
        if answer.strip() == gold.strip():
            assert found is not False


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "\\frac{", "(", "permits ", "5 permits ", "1,", "\\pm", "$", "The answer is "]
)
def test_a_reply_that_repeats_itself_is_read_at_once(piece: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lema.tasks.math.equality.compare", lambda one, other: "unreadable")
        extract_math(piece * 3000)
        extract_math("The answer is " + piece * 3000)
        assert equal_math((piece * 400)[:400], "7") is not True


SOLUTION = """First, $x = 2$.
[asy]
draw(a--b);
[/asy]
Then
\\[
 x + 1 = 3.
\\]
So it is $\\boxed{\\frac{3}{\\sqrt{2}}}$."""


def test_a_record_as_published() -> None:
    record = {"problem": " What is it? ", "solution": SOLUTION, "level": "Level 3", "type": "Algebra"}
    rationale = "First, $x = 2$.\nThen \\[ x + 1 = 3. \\]\nSo it is $\\frac{3}{\\sqrt{2}}$."
    strata = {"level": "Level 3", "type": "Algebra"}
    assert math.read(record) == Reading("What is it?", "\\frac{3}{\\sqrt{2}}", rationale, strata)


def test_the_box_of_the_solution_counts_and_the_answer_stands_in() -> None:
    record = {"problem": "Q?", "solution": "So $\\boxed{\\tan x}$.", "answer": "\\tanx"}
    assert math.read(record).gold == "\\tan x"
    assert math.read({"problem": "Q?", "answer": 12}) == Reading("Q?", "12", None)


def test_an_instruction_in_the_problem_is_no_part_of_it() -> None:
    problem = "How many? Let's think step by step and output the final answer within \\boxed{}."
    assert math.read({"problem": problem, "answer": "5"}).text == "How many?"


def test_a_box_in_a_path_is_not_taken_for_the_gold_answer() -> None:
    assert math.write is not None
    reading = math.read(
        math.write(Reading("What is $x$?", "5", "So $x = \\boxed{4}$.\nNo: $\\boxed{5}$, or $\\boxed{"))
    )
    assert (reading.gold, reading.rationale) == ("5", "So $x = 4$.\nNo: $5$, or $\\boxed{")


def test_an_empty_box_is_left_out() -> None:
    assert math.counts is not None
    assert not math.counts({"problem": "Q?", "solution": "Therefore $\\boxed{}$."})
    assert math.counts({"problem": "Q?", "solution": "Therefore $\\boxed{}$.", "answer": "0"})
    assert math.counts({"problem": "Q?"})


def test_real_solutions_reach_their_gold_answer(real_records: Callable[[str], list[dict[str, Any]]]) -> None:
    records = real_records("math/train_2000.jsonl")
    assert math.counts is not None
    readings = [(record, math.read(record)) for record in records if math.counts(record)]
    assert len(readings) == 1998
    assert sum(extract_math(record["solution"]) == reading.gold for record, reading in readings) >= 1997
    for _, reading in readings:
        stated = extract_math(f"Step 9: The answer is ${reading.gold}$.")
        assert stated is not None
        assert equal_math(stated, reading.gold) is True
        assert "\\boxed" not in (reading.rationale or "")
        assert math.write is not None
        assert math.read(math.write(reading)) == reading
