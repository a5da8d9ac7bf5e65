import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pytest

from lema.filters.answer_matches import answer_matches
from lema.filters.duplicate import duplicate
from lema.filters.majority import majority
from lema.models.types import Completion, Model, Request
from lema.recipe.schema import CorrectionsSpec
from lema.rows import Correction, Location, Verdict
from lema.stages.common import stable_shuffle
from lema.stages.corrections import corrections
from lema.stages.verdicts import verdicts
from tests.stages.rows import BASE, Script, by_id, graded, question, sample, task

GOOD = """\
Incorrect Step: Step 2.
Error Type: wrong operation
Explanation: It adds.
Correct Solution:
...
Step 2: 2 * 3 = 6
Step 3: The answer is 6."""
PROMPT = {"user": "{{ question }}\n{{ path }}"}
QUESTIONS = [question(6), question(7)]
WRONG = sample("q6", "Two and three.\n2 + 3 = 5\nThe answer is 5.")
OUTCOMES = {
    WRONG: "incorrect",
    sample("q6", "The answer is 6.", index=1): "correct",
    sample("q7", "Eh?", "other"): "unparsed",
    sample("q7", "The answer is 1.", "other", 1): "incorrect",
}
SAMPLES, GRADES = [*OUTCOMES], [graded(row, outcome) for row, outcome in OUTCOMES.items()]


def nobody(*rows: Any) -> list[Verdict]:
    raise AssertionError("judged without a target")


def corrected(generate: Script, found: list[Location] | None = None, **spec: Any) -> list[Correction]:
    made = CorrectionsSpec.model_validate({"model": "base", "prompt": PROMPT, **spec})
    return list(
        corrections(
            QUESTIONS, BASE, SAMPLES, GRADES, found or [], spec=made, task=task(), models={"m": Model("m", "b", "m")},
            generate=generate, judge=nobody, pmap=map, log=print,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "ids"),
    [
        ({}, ["q6/s/0/c0", "q7/other/1/c0"]),
        ({"samplers": ("s",)}, ["q6/s/0/c0"]),
        ({"samplers": ("s",), "tries": 3}, ["q6/s/0/c0", "q6/s/0/c1", "q6/s/0/c2"]),
        ({"samplers": ()}, []),
    ],
)
def test_only_wrong_paths_are_corrected(spec: dict[str, Any], ids: list[str]) -> None:
    generate = Script(GOOD)
    assert [row.id for row in corrected(generate, **spec)] == ids
    assert [request.index for request in generate.asked] == [int(name[-1]) for name in ids]


OBJECT = """```json
{"incorrect_step": 2, "explanation": "It adds.", "solution": ["...", "2 * 3 = 6", "The answer is 6."]}
```"""
NAMELESS = "Mistakes: It adds.\nCorrected Answer:\n2 * 3 = 6\nThe answer is 6."
SOLUTION = "2 * 3 = 6\nThe answer is 6."


@pytest.mark.parametrize(
    ("reply", "spec", "fields"),
    [
        (GOOD, {}, (2, "wrong operation", "It adds.", f"...\n{SOLUTION}", "6")),
        (NAMELESS, {}, (None, None, "It adds.", SOLUTION, "6")),
        (GOOD.replace("Explanation: It adds.\n", ""), {"without": ("explanation",)},
         (2, "wrong operation", None, f"...\n{SOLUTION}", "6")),
        (OBJECT, {"format": "json"}, (2, None, "It adds.", f"...\n{SOLUTION}", "6")),
    ],
)  # fmt: skip
def test_the_fields_of_a_reply(reply: str, spec: dict[str, Any], fields: tuple[Any, ...]) -> None:
    row = corrected(Script(reply), samplers=("s",), **spec)[0]
    assert (row.status, row.reason, row.sample_id, row.question_id, row.reply) == (
        "parsed",
        None,
        WRONG.id,
        "q6",
        reply,
    )
    assert (row.incorrect_step, row.error_type, row.explanation, row.solution, row.answer) == fields


@pytest.mark.parametrize(
    ("completion", "status", "reason"),
    [
        (Completion("", "failed", "timed out"), "failed", "timed out"),
        (Completion("", "refused", "policy"), "failed", "policy"),
        (Completion(GOOD, "length"), "truncated", "the reply was cut at max_tokens"),
        (Completion("I see no mistake.", "stop"), "malformed", "`Incorrect Step:` is missing"),
        (
            Completion(GOOD.replace("Step: Step 2", "Step: Step 4").replace("Step 2:", "Step 4:"), "stop"),
            "malformed",
            "the incorrect step is 4, but the path has steps 1 to 3",
        ),
        (Completion(GOOD.replace("It adds.", ""), "stop"), "malformed", "`Explanation:` is empty"),
        (Completion("{]", "stop"), "malformed", "the reply is not a JSON object"),
    ],
)
def test_a_reply_that_cannot_be_read_is_kept_with_the_reason(completion: Completion, status: str, reason: str) -> None:
    row = corrected(Script(completion), samplers=("s",), format="json" if "JSON" in reason else "text")[0]
    assert (row.status, row.reason, row.reply) == (status, reason, completion.text)
    assert (row.incorrect_step, row.error_type, row.explanation, row.solution, row.answer) == (None,) * 5


@pytest.mark.parametrize(
    ("hint", "user", "expected"),
    [
        ("none", "{{ path }}", "Step 1: Two and three.\nStep 2: 2 + 3 = 5\nStep 3: The answer is 5."),
        ("none", "{{ steps[1] }} of {{ question }}", "2 + 3 = 5 of Question 6?"),
        ("answer", "{{ gold }}", "6"),
        ("rationale", "{{ gold }}: {{ rationale }}", "6: 6 + 0 = 6."),
    ],
)
def test_what_the_corrector_is_shown(hint: str, user: str, expected: str) -> None:
    generate = Script(GOOD)
    rows = corrected(generate, samplers=("s",), hint=hint, prompt={"user": user}, model="m")
    assert generate.asked[0].messages[-1].content == expected
    assert {row.model for row in rows} == {"m"}


def location(sample_id: str, step: int | None) -> Location:
    status, reason = ("parsed", None) if step else ("malformed", "names no step")
    return Location(sample_id, "q", "s", status, reason, "", step, "m", "", "", 0, 0)  # type: ignore[arg-type]


TOLD = {"user": "{{ path }} {{ incorrect_step }}"}


def test_a_corrector_is_told_the_step_and_not_asked_where_there_is_none() -> None:
    generate = Script(GOOD)
    rows = {row.id: row for row in corrected(generate, [location("q6/s/0", 2)], prompt=TOLD)}
    assert len(generate.asked) == 1
    assert generate.asked[0].messages[-1].content.endswith("The answer is 5. 2")
    assert rows["q6/s/0/c0"].status == "parsed"
    assert (rows["q7/other/1/c0"].status, rows["q7/other/1/c0"].reason) == ("failed", "no location was asked for")


def test_a_location_that_failed_is_the_reason_and_is_nothing_to_a_prompt_that_does_not_ask_for_it() -> None:
    row = corrected(Script(GOOD), [location("q6/s/0", None)], prompt=TOLD, samplers=("s",))[0]
    assert (row.status, row.reason) == ("failed", "no location: names no step")
    assert len(corrected(Script(GOOD), [location("q6/s/0", 1)])) == 2


STEPLESS = """\
Explanation: It adds.
Correct Solution:
Step 1: Two and three.
Step 2: 2 * 3 = 6
Step 3: The answer is 6."""


@pytest.mark.parametrize(
    ("reply", "found", "step"),
    [
        (STEPLESS, [], 2),
        (STEPLESS.replace("Step 1: Two and three.", "..."), [], 2),
        (STEPLESS, [location("q6/s/0", 1)], 1),
        (STEPLESS.replace("2 * 3 = 6", "2 + 3 = 5").replace("is 6", "is 5"), [], None),
    ],
)
def test_a_reply_without_step_has_the_one_that_is_told_or_else_the_first_that_it_changes(
    reply: str, found: list[Location], step: int | None
) -> None:
    prompt = TOLD if found else PROMPT
    row = corrected(Script(reply), found, without=("incorrect_step",), samplers=("s",), prompt=prompt)[0]
    assert (row.status, row.incorrect_step, row.explanation) == ("parsed", step, "It adds.")


PATHS = by_id(sample(f"q{at % 20}", f"A {at}.\nThe answer is 99.", index=at // 20) for at in range(60))
MANY = by_id(question(number) for number in range(20))


def mended(request: Request) -> Completion:
    """The right answer for half of the paths, for the others a wrong one or none; every try has its own luck."""
    text = request.messages[-1].content
    luck = zlib.crc32(f"{text} {request.index}".encode()) % 4
    right = text.removeprefix("Question ").partition("?")[0]
    answer = right if luck < 2 else "77"
    steps = f"Correct Solution:\nStep 1: B.\nStep 2: The answer is {answer}."
    return Completion(f"Incorrect Step: Step 1.\nExplanation: No.\n{steps}" if luck < 3 else "No idea.", "stop")


def until(
    generate: Any, filters: dict[str, Any] | None = None, said: list[str] | None = None, found: Any = (), **spec: Any
) -> tuple[list[Correction], list[Verdict]]:
    """Corrections until there are enough, and what the stage `verdicts` makes of them as they lie in the file."""

    def judge(*rows: Any) -> Iterator[Verdict]:
        return verdicts(*rows, task=task(), filters=filters or {"answer_matches": answer_matches})

    made = CorrectionsSpec.model_validate({"model": "base", "prompt": PROMPT, **spec})
    rows = corrections(
        MANY, BASE, PATHS, [graded(row, "incorrect") for row in PATHS], found, spec=made, task=task(), models={},
        generate=generate, judge=judge, pmap=map, log=[].append if said is None else said.append,
    )  # fmt: skip
    rows = sorted(rows, key=lambda row: row.id)
    return rows, list(judge(MANY, PATHS, rows))


def accepted(rows: list[Verdict]) -> int:
    return sum(row.accepted for row in rows)


@pytest.mark.parametrize("want", [1, 7, 20])
def test_as_few_paths_are_corrected_as_it_takes(want: int) -> None:
    generate = Script(mended)
    rows, judged = until(generate, want=want)
    assert accepted(judged) == want
    drawn = [f"{one.id}/c0" for one in stable_shuffle(PATHS, 0, lambda path: path.id)]
    assert {row.id for row in rows} == set(drawn[: len(rows)])
    last = next(row for row in judged if row.id == drawn[len(rows) - 1])
    assert last.accepted
    assert len(generate.asked) == len(rows) < len(PATHS)


def test_more_wanted_keeps_what_there_is() -> None:
    few, more = ({row.id for row in until(Script(mended), want=want)[0]} for want in (5, 15))
    assert few < more
    other = {row.id for row in until(Script(mended), want=5, seed=1)[0]}
    assert few != other


@pytest.mark.parametrize("limit", [None, 24, 25, 26])
def test_a_target_out_of_reach_takes_all_candidates_and_is_no_failure(limit: int | None) -> None:
    said: list[str] = []
    rows, judged = until(Script(mended), said=said, want=40, max_candidates=limit)
    assert len(rows) == (limit or 60)
    why = "there are no more wrong paths" if limit is None else "`max_candidates` allows no more"
    assert said == [f"wanted 40 accepted corrections, got {accepted(judged)} of {limit or 60} candidates: {why}"]


def test_all_tries_of_a_path_are_made() -> None:
    rows, judged = until(Script(mended), want=9, tries=3)
    assert accepted(judged) >= 9
    assert set(Counter(row.sample_id for row in rows).values()) == {3}
    assert len(until(Script(mended), want=40, tries=3, max_candidates=50)[0]) == 48


@pytest.mark.parametrize(
    "filters",
    [
        {"answer_matches": answer_matches, "duplicate": duplicate},
        {"majority": partial(majority, of="question", task=task())},
    ],
)
def test_filters_that_compare_candidates_judge_as_they_will_in_the_end(filters: dict[str, Any]) -> None:
    rows, judged = until(Script(mended), filters, want=12)
    assert 12 <= accepted(judged) < 12 + 3
    assert len(rows) < len(PATHS)


def test_a_path_without_location_stands_beside_those_that_are_taken() -> None:
    found = [location(path.id, 1) for path in PATHS[10:]]
    rows, judged = until(Script(mended), found=found, want=6, prompt={"user": "{{ question }} {{ incorrect_step }}"})
    assert sum(row.reason == "no location was asked for" for row in rows) == 10
    assert accepted(judged) == 6


def test_the_order_of_replies_decides_nothing() -> None:
    def backwards(requests: Iterable[Request]) -> Iterator[Completion]:
        asked = list(requests)
        return iter([mended(one) for one in reversed(asked)][::-1])

    assert until(backwards, want=13) == until(Script(mended), want=13)
