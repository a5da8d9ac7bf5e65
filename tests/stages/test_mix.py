from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from lema.models.types import Model
from lema.recipe.prompt import PromptError
from lema.recipe.training_schema import MixSpec
from lema.rows import Example, Message
from lema.stages.mix import mix
from tests.stages.rows import BASE, accepted, by_id, correction, graded, question, sample

COT = {"user": "{{ question }}", "assistant": "{{ steps | join(' / ') }} = {{ answer }}"}
FORMAT = {
    "user": "{{ question }}\n{{ path }}",
    "assistant": "{{ incorrect_step }}: {{ explanation }}\n{{ solution | join('\n') }}\n{{ answer }}",
}
COUNT = 12
QUESTIONS = [*(question(number) for number in range(COUNT)), question(99, "test")]
RIGHT = [sample(f"q{n}", f"Let us see.\nSo {n} is it. The answer is {n}.", "good") for n in range(COUNT)]
WRONG = [sample(f"q{n}", f"First.\n{n} + 1 = {n + 1}\nThe answer is {n + 1}.", "bad") for n in range(COUNT)]
MENDED = [correction(row, f"...\n{row.question_id} + 0\nThe answer is it.", 2) for row in WRONG]


def words(base: Model, prompts: Sequence[Sequence[Message]], completions: Sequence[str]) -> list[int]:
    """A word is a token."""
    assert base == BASE
    read = [sum(len(message.content.split()) for message in prompt) for prompt in prompts] or [0] * len(completions)
    return [before + len(text.split()) for before, text in zip(read, completions, strict=True)]


def mixed(arm: str = "a", *, questions: Any = QUESTIONS, samples: Any = None, corrections: Any = MENDED,
          verdicts: Any = None, seed: int = 0, tokens: str = "completion", count: Any = words,
          **arms: Any) -> list[Example]:  # fmt: skip
    rows = by_id([*RIGHT, *WRONG] if samples is None else samples)
    grades = [graded(row, "incorrect" if row.sampler == "bad" else "correct") for row in rows]
    judged = by_id([accepted(row) for row in corrections] if verdicts is None else verdicts)
    spec = MixSpec.model_validate({"cot": COT, "correction": FORMAT, "arms": arms, "seed": seed, "tokens": tokens})
    mended, asked = by_id(corrections), by_id(questions)
    return by_id(mix(asked, rows, grades, mended, judged, BASE, spec=spec, arm=arm, count_tokens=count))


def sizes(rows: list[Example]) -> tuple[int, int]:
    return sum(row.kind == "cot" for row in rows), sum(row.kind == "correction" for row in rows)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ({"cot": {}}, (12, 0)),
        ({"cot": {"rationales": False, "samplers": ("good",)}}, (12, 0)),
        ({"cot": {"samplers": ("good", "bad")}}, (24, 0)),
        ({"corrections": {}}, (0, 12)),
        ({"cot": {"rows": 5}, "corrections": {"rows": 3}}, (5, 3)),
        ({"cot": {"rows": 0}, "corrections": {}}, (0, 12)),
        ({"cot": {"rows": 500}}, (12, 0)),
        ({"cot": {"rows": {"fraction": 0.5}}, "corrections": {"rows": {"fraction": 0.25}}}, (6, 3)),
        ({"cot": {"rows": {"fraction": 0.0}}, "corrections": {"rows": {"fraction": 1.0}}}, (0, 12)),
        ({"cot": {"samplers": ("good",), "rows": {"match": "b"}}}, (20, 0)),
        ({"cot": {"samplers": ("good",), "rows": {"match": "b"}}, "corrections": {"rows": 5}}, (15, 5)),
        ({"cot": {}, "corrections": {"rows": {"match": "b"}}}, (12, 8)),
        ({"cot": {"rows": {"match": "c"}, "samplers": ("good",)}}, (20, 0)),
        ({"cot": {"rows": {"match": "small"}}, "corrections": {"rows": 5}}, (0, 5)),
        ({"cot": {"rows": 30, "repeat": True}}, (30, 0)),
        ({"cot": {"rows": 5, "repeat": True}}, (5, 0)),
        ({"cot": {"rows": {"match": "b"}, "repeat": True}, "corrections": {"rows": 2}}, (18, 2)),
    ],
)
def test_sizes(arm: dict[str, Any], expected: tuple[int, int]) -> None:
    others: dict[str, Any] = {
        "b": {"cot": {}, "corrections": {"rows": 8}},
        "c": {"cot": {}, "corrections": {"rows": {"match": "b"}}},
        "small": {"cot": {"rows": 2}},
    }
    assert sizes(mixed(a=arm, **others)) == expected


def test_the_order_is_drawn_by_seed_and_mixes_the_kinds() -> None:
    arm: dict[str, Any] = {"cot": {}, "corrections": {}}
    runs = [[row.source_id for row in mixed(a=arm, seed=seed)] for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert sorted(runs[0]) == sorted(runs[2])
    kinds = [row.kind for row in mixed(a=arm)]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("cot", {"rows": (2, 5, 9, 12)}), ("corrections", {"rows": (2, 5, 9, 12)}), ("cot", {"tokens": (10, 30, 60)})],
)
def test_choices_are_nested(kind: str, sizes: dict[str, Any]) -> None:
    ((unit, wanted),) = sizes.items()
    chosen = [{row.source_id for row in mixed(a={kind: {unit: size}})} for size in wanted]
    assert unit == "tokens" or [len(ids) for ids in chosen] == [*wanted]
    assert all(small < large for small, large in pairwise(chosen))


def test_ids_say_the_place_in_the_arm() -> None:
    assert [row.id for row in mixed(a={"cot": {"rows": 3}})] == ["a/000000", "a/000001", "a/000002"]


def test_test_questions_are_never_learnt() -> None:
    assert "q99" not in {row.question_id for row in mixed(a={"cot": {"samplers": ("good",)}, "corrections": {}})}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Step 1: 2 + 3 = 5.\nStep 2: The answer is 5.", "2 + 3 = 5. = 5"),
        ("First 2.\nThen 2 + 3 = 5. The answer is 5.", "First 2. / Then 2 + 3 = 5. = 5"),
        ("2 + 3 = 5. So, the final answer is 5.", "2 + 3 = 5. = 5"),
        ("2 + 3 = 5.\nThus the answer is: 5", "2 + 3 = 5. = 5"),
        ("The answer is 5.", "= 5"),
    ],
)
def test_a_right_path_keeps_its_steps_and_states_the_answer_once(path: str, expected: str) -> None:
    rows = mixed(a={"cot": {"rationales": False, "samplers": ("s",)}}, samples=[sample("q5", path)], corrections=[])
    assert [row.completion for row in rows] == [expected]


def test_the_same_steps_are_learnt_once() -> None:
    rows = [
        sample("q5", f"Step 1: 5 + 0 = 5.{end}", index=index) for index, end in enumerate(("", "\nThe answer is 5."))
    ]
    made = mixed(a={"cot": {"samplers": ("s",)}}, questions=[question(5)], samples=rows, corrections=[])
    assert [row.source_id for row in made] == ["q5"]


def test_questions_without_rationale_have_no_cot_row() -> None:
    assert mixed(a={"cot": {}}, questions=[question(5, rationale=None)], samples=[], corrections=[]) == []


FULL, SHORT = "First.\nSecond, mended.\nThe answer is 5.", "...\nSecond, mended.\nThe answer is 5."
REWRITTEN = "Another way.\nSecond, mended.\nThe answer is 5."


@pytest.mark.parametrize(
    ("solution", "at", "variable", "lines"),
    [
        (SHORT, 2, "solution", ["...", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (FULL, 2, "solution", ["...", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (SHORT, 2, "full", ["Step 1: First.", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (FULL, 2, "full", ["Step 1: First.", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (REWRITTEN, 2, "solution", ["Step 1: Another way.", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (FULL, 1, "solution", ["Step 1: First.", "Step 2: Second, mended.", "Step 3: The answer is 5."]),
        (SHORT, 2, "before", ["First."]),
        (SHORT, 2, "after", ["Second, mended."]),
        (FULL, 2, "after", ["Second, mended."]),
        (REWRITTEN, 2, "after", ["Another way.", "Second, mended."]),
        (FULL, 1, "before", []),
        (FULL, 1, "after", ["First.", "Second, mended."]),
    ],
)
def test_a_format_chooses_how_the_solution_is_written(solution: str, at: int, variable: str, lines: list[str]) -> None:
    path = sample("q5", "First.\nSecond.\nThe answer is 6.", "bad")
    written = {**FORMAT, "assistant": FORMAT["assistant"].replace("solution", variable)}
    (row,) = mixed(a={"corrections": {"format": written}}, samples=[path], corrections=[correction(path, solution, at)])
    assert row.completion.split("\n") == [f"{at}: Because.", *(lines or [""]), "5"]
    assert [message.content for message in row.prompt] == [
        "Question 5?\nStep 1: First.\nStep 2: Second.\nStep 3: The answer is 6."
    ]
    assert (row.kind, row.source_id, row.question_id) == ("correction", "q5/bad/0/c0", "q5")


def test_a_correction_without_a_step_is_its_solution_line_by_line() -> None:
    path = sample("q5", "First.\nThe answer is 6.", "bad")
    written = {
        "user": "{{ path }}",
        "assistant": "{{ full | join('/') }} {{ after | join('/') }} {{ before }}",
    }
    arm = {"corrections": {"format": written}}
    (row,) = mixed(a=arm, samples=[path], corrections=[correction(path, "Afresh.\nThe answer is 5.", None)])
    assert row.completion == "Afresh./The answer is 5. Afresh. []"


INLINE = {
    "user": "{{ question }}",
    "assistant": "{{ before | join(' ') }}\n{{ wrong }}\nNo. {{ explanation }}\n"
    "{{ after | join(' ') }}\n= {{ answer }}",
}


@pytest.mark.parametrize("masked", [True, False])
def test_the_incorrect_step_of_one_trajectory_is_masked_on_wish(masked: bool) -> None:
    path = sample("q5", "First.\nSecond.\nThird.\nThe answer is 6.", "bad")
    arm = {"corrections": {"format": INLINE, "masked": masked}}
    (row,) = mixed(a=arm, samples=[path], corrections=[correction(path, SHORT, 2)])
    assert row.completion == "First.\nSecond.\nNo. Because.\nSecond, mended.\n= 5"
    assert [row.completion[start:end] for start, end in row.masked] == (["Second."] if masked else [])


def test_a_format_of_an_arm_is_its_own() -> None:
    arms = {"a": {"cot": {"format": INLINE | {"assistant": "{{ answer }}!"}}}, "b": {"cot": {}}}
    assert {row.completion[-1] for row in mixed(**arms)} == {"!"}
    assert {row.completion[-1] for row in mixed("b", **arms)} != {"!"}


def tokens(rows: list[Example], of: str = "completion") -> int:
    return sum(words(BASE, [row.prompt for row in rows if of == "example"], [row.completion for row in rows]))


@pytest.mark.parametrize("of", ["completion", "example"])
@pytest.mark.parametrize(
    "arm",
    [
        {"cot": {"tokens": {"match": "b"}, "samplers": ("good",)}},
        {"cot": {"tokens": {"match": "b"}, "samplers": ("good",)}, "corrections": {"rows": 2}},
        {"cot": {"rows": 3}, "corrections": {"tokens": {"match": "b"}}},
        {"cot": {"tokens": {"match": "b"}, "repeat": True}},
    ],
)
def test_an_arm_of_as_many_tokens_as_another(arm: dict[str, Any], of: str) -> None:
    other = {"cot": {"rows": 4}, "corrections": {"rows": 5}}
    ours, theirs = (mixed(name, a=arm, b=other, tokens=of) for name in ("a", "b"))
    longest = max(tokens([row], of) for row in ours)
    assert abs(tokens(ours, of) - tokens(theirs, of)) <= longest / 2
    assert len(ours) != len(theirs)


@pytest.mark.parametrize("budget", [0, 1, 8, 20, 41, 10_000])
def test_a_budget_of_tokens_is_met_to_the_nearest_row(budget: int) -> None:
    whole = mixed(a={"cot": {}})
    rows = mixed(a={"cot": {"tokens": budget}})
    assert {row.source_id for row in rows} <= {row.source_id for row in whole}
    each = {tokens([row]) for row in whole}
    assert abs(tokens(rows) - min(budget, tokens(whole))) <= max(each) / 2


def test_rows_come_again_only_after_all_have_come_in_another_order_and_not_side_by_side() -> None:
    rows = [row.source_id for row in mixed(a={"cot": {"rows": 3 * COUNT - 4, "repeat": True}})]
    times = Counter(rows)
    assert set(times) == {row.source_id for row in mixed(a={"cot": {}})}
    assert sorted(times.values()) == [2] * 4 + [3] * (COUNT - 4)
    assert sum(one == other for one, other in pairwise(rows)) < COUNT / 2
    more = Counter(row.source_id for row in mixed(a={"cot": {"rows": 3 * COUNT, "repeat": True}}))
    assert times <= more


@pytest.mark.parametrize("size", [{}, {"rows": "all"}, {"rows": {"fraction": 0.5}}])
def test_to_repeat_without_a_size_is_refused(size: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs a size to come up to"):
        mixed(a={"cot": {"repeat": True, **size}})


def test_tokens_are_counted_only_where_they_size_an_arm() -> None:
    def never(*_: object) -> list[int]:
        raise AssertionError

    assert len(mixed(count=never, a={"cot": {"rows": {"match": "b"}}}, b={"cot": {"rows": 2}})) == 2


def test_corrected_solutions_are_cot_rows_in_full() -> None:
    path = sample("q5", "First.\nSecond.\nThe answer is 6.", "bad")
    mended = correction(path, SHORT, 2)
    rows = mixed(a={"cot": {"rationales": False, "corrected": True}}, samples=[path], corrections=[mended])
    assert [(row.kind, row.source_id, row.completion) for row in rows] == [
        ("cot", mended.id, "First. / Second, mended. = 5")
    ]
    refused = mixed(
        a={"cot": {"corrected": True}}, samples=[path], corrections=[mended], verdicts=[accepted(mended, False)]
    )
    assert mended.id not in {row.source_id for row in refused}


@pytest.mark.parametrize(("limit", "expected"), [(1, {"q5"}), (2, {"q5", "new"}), (3, {"q5", "new", "old"})])
def test_few_rows_a_question_are_those_with_other_figures(limit: int, expected: set[str]) -> None:
    texts = [f"Well, {5} + 0 = 5{end}" for end in (".", ", as 5 + 0 = 5.")]
    rows = [sample("q5", text, "good", index) for index, text in enumerate([texts[0], texts[0] + " So.", texts[1]])]
    arm = {"cot": {"samplers": ("good",), "per_question": limit}}
    made = mixed(a=arm, questions=[question(5)], samples=rows, corrections=[])
    names = {"q5": "q5", rows[2].id: "new"}
    assert {names.get(row.source_id, "old") for row in made} == expected
    assert len(made) == limit


def test_an_arm_may_take_the_corrections_of_some_samplers() -> None:
    paths = [sample("q1", "1 + 1 = 3\nThe answer is 3.", "bad"), sample("q2", "2 + 2 = 5\nThe answer is 5.", "worse")]
    mended = [correction(path, "2\nThe answer is it.", 1) for path in paths]

    def learnt(corrections: dict[str, Any]) -> set[str]:
        return {row.source_id for row in mixed(a={"corrections": corrections}, samples=paths, corrections=mended)}

    assert learnt({"samplers": ("worse",)}) == {mended[1].id}
    assert learnt({"samplers": ("bad", "worse")}) == learnt({}) == {row.id for row in mended}


def test_only_accepted_corrections_that_say_something_are_learnt() -> None:
    empty = correction(WRONG[2], None, None, status="malformed", reason="no", explanation=None)
    made = mixed(
        a={"corrections": {}},
        corrections=[*MENDED[:2], empty],
        verdicts=[accepted(MENDED[0]), accepted(MENDED[1], False), accepted(empty)],
    )
    assert [row.source_id for row in made] == [MENDED[0].id]


def test_a_format_may_write_the_gold_rationale_of_the_question() -> None:
    gold = {"user": "{{ question }}", "assistant": "{{ rationale | join(' / ') }} = {{ answer }}"}
    rows = mixed(a={"corrections": {"format": gold}}, corrections=MENDED[:1])
    assert [row.completion for row in rows] == [
        row.completion for row in mixed(a={"cot": {"rows": 12}}) if row.question_id == "q0"
    ]
    bare = [replace(row, rationale=None) for row in QUESTIONS]
    with pytest.raises(PromptError, match="rationale"):
        mixed(a={"corrections": {"format": gold}}, corrections=MENDED[:1], questions=bare)


UNNAMED = {"samples": [WRONG[2]], "corrections": [correction(WRONG[2], "(A) two.\nThe answer is 2.", None)]}


@pytest.mark.parametrize("name", ["incorrect_step", "wrong"])
def test_a_format_that_names_the_step_wants_corrections_that_do(name: str) -> None:
    written = {"user": "{{ path }}", "assistant": "Step {{ %s }}." % name}  # noqa: UP031
    with pytest.raises(PromptError, match=name):
        mixed(a={"corrections": {"format": written}}, **UNNAMED)


def test_a_correction_without_a_step_is_learnt_as_it_is() -> None:
    written = {"user": "{{ steps | join('|') }}", "assistant": "{{ explanation }}: {{ solution | join('|') }}"}
    (made,) = mixed(a={"corrections": {"format": written}}, **UNNAMED)
    assert made.prompt[0].content == "First.|2 + 1 = 3|The answer is 3."
    assert made.completion == "Because.: (A) two.|The answer is 2."
