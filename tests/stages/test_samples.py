from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from lema.errors import RunError
from lema.models.types import Completion, Model, Request
from lema.recipe.sampler_schema import SamplesSpec
from lema.rows import Sample
from lema.stages.samples import samples
from tests.stages.rows import BASE, Script, question, task

QUESTIONS = [question(1), question(2), question(3, "test")]
STRONG = Model("strong", "openai", "openai strong-1")
SOLVE = {"user": "{{ question }}"}


def sampled(generate: Any, rows: Any = (), questions: Any = QUESTIONS, **samplers: Any) -> list[Sample]:
    spec = SamplesSpec.model_validate({"samplers": samplers})
    return list(
        samples(
            questions, BASE, spec=spec, task=task(), models={"strong": STRONG}, generate=generate,
            read_file=lambda _: iter(rows), log=print,
        )
    )  # fmt: skip


class Calls:
    """A `generate` that remembers what it is asked in each call."""

    def __init__(self, reply: Callable[[Request], str]) -> None:
        self.reply, self.calls = reply, list[list[Request]]()

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        self.calls.append(list(requests))
        return (Completion(self.reply(request), "stop") for request in self.calls[-1])


def test_every_sampler_asks_every_training_question() -> None:
    generate = Script(lambda request: Completion(f"{request.model.label} {request.index}", "stop", None, 7, 2))
    made = sampled(
        generate, few={"model": "base", "prompt": SOLVE}, many={"model": "strong", "prompt": SOLVE, "paths": 2}
    )
    assert [(row.id, row.text) for row in made] == [
        ("q1/few/0", "base 0"),
        ("q1/many/0", "strong 0"),
        ("q1/many/1", "strong 1"),
        ("q2/few/0", "base 0"),
        ("q2/many/0", "strong 0"),
        ("q2/many/1", "strong 1"),
    ]
    assert [row.completion for row in made] == [request.key for request in generate.asked]
    assert {row.model for row in made} == {BASE.identity, STRONG.identity}
    assert {(row.prompt_tokens, row.completion_tokens) for row in made} == {(7, 2)}


def test_a_sampler_says_how_to_ask() -> None:
    generate = Script("?")
    sampled(
        generate,
        one={
            "model": "base", "prompt": {"system": "Be brief.", **SOLVE}, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
            "max_tokens": 9, "stop": ("\n",), "seed": 3,
        },
    )  # fmt: skip
    first = generate.asked[0]
    assert [(message.role, message.content) for message in first.messages] == [
        ("system", "Be brief."),
        ("user", "Question 1?"),
    ]
    asked = first.sampling
    assert (asked.temperature, asked.top_p, asked.top_k, asked.max_tokens, asked.stop, asked.seed) == (
        0.5, 0.9, 4, 9, ("\n",), 3,
    )  # fmt: skip


@pytest.mark.parametrize("finish", ["stop", "length", "failed", "refused"])
def test_a_request_without_a_reply_is_a_row_too(finish: Any) -> None:
    error = "why" if finish in ("failed", "refused") else None
    rows = sampled(Script(Completion("text", finish, error)), one={"model": "base", "prompt": SOLVE})
    assert [(row.finish, row.error) for row in rows] == [(finish, error)] * 2


def test_more_paths_and_samplers_leave_the_old_requests_as_they_were() -> None:
    def keys(**samplers: Any) -> set[str]:
        generate = Script("?")
        sampled(generate, **samplers)
        return {request.key for request in generate.asked}

    one = {"model": "base", "prompt": SOLVE}
    few, more = keys(one={**one, "paths": 2}), keys(one={**one, "paths": 3}, two={**one, "seed": 5})
    assert few < more
    assert len(more) - len(few) == 2 + 2


def test_imported_paths_belong_to_the_question_of_the_same_text() -> None:
    rows = [
        {"question": "Question  2?\n", "path": "2 - 1 = 1"},
        {"question": "Question 9?", "path": "never asked"},
        {"question": "Question 3?", "path": "a test question"},
        {"question": "Question 2?", "path": ["first", "second"]},
    ]
    made = sampled(Script("?"), rows, old={"import": {"file": "old.jsonl"}})
    assert [(row.id, row.text, row.finish, row.model, row.completion) for row in made] == [
        ("q2/old/0", "2 - 1 = 1", "stop", "import", ""),
        ("q2/old/1", "Step 1: first\nStep 2: second", "stop", "import", ""),
    ]
    rows = [{"ask": "Question 1?", "tried": "1"}]
    files = {"file": "old.jsonl", "question": "ask", "path": "tried"}
    made = sampled(Script("?"), rows, old={"import": files}, new={"model": "base", "prompt": SOLVE})
    assert [row.id for row in made] == ["q1/old/0", "q1/new/0", "q2/new/0"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Question 1?"}, "old.jsonl, row 1: needs a text in `path`; the record has: question"),
        (
            {"question": "Question 1?", "path": None},
            "row 1: needs a text in `path`; the record has: path, question",
        ),
        ({"question": "Other?", "path": ""}, "no row of old.jsonl belongs to a training question"),
    ],
)
def test_what_cannot_be_imported(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        sampled(Script("?"), [row], old={"import": {"file": "old.jsonl"}})


def test_requests_are_all_handed_over_at_once() -> None:
    """Several endpoints are busy at the same time only when one call knows of all requests."""
    generate, one = Calls(str), {"model": "base", "prompt": SOLVE}
    sampled(generate, a=one, b={**one, "model": "strong"})
    assert [len(requests) for requests in generate.calls] == [4]


PEN = question(5, text="Ada has 3 pens and finds 2. How many has she?", rationale="3 + 2 = 5 pens.")
BOX = question(7, text="Of 9 boxes 2 go.", rationale="There are 9 boxes.\n9 - 2 = 7 boxes.")


def made(reply: Callable[[Request], str], **samplers: Any) -> tuple[list[Sample], list[list[Request]]]:
    """Paths for two questions with rationales, and the calls that were made for them."""
    generate = Calls(reply)
    return sampled(generate, questions=[PEN, BOX, question(3, "test")], **samplers), generate.calls


def test_a_program_spoils_gold_rationales_and_says_how() -> None:
    rows, calls = made(str, slips={"inject": {"errors": ("wrong operation",)}, "paths": 1})
    assert calls == []
    assert [(row.id, row.text, row.origin, row.error_type, row.incorrect_step) for row in rows] == [
        ("q5/slips/0", "Step 1: 3 * 2 = 6 pens.\nStep 2: The answer is 6.", "q5", "wrong operation", 1),
        ("q7/slips/0", "Step 1: There are 9 boxes.\nStep 2: 9 + 2 = 11 boxes.\nStep 3: The answer is 11.", "q7",
         "wrong operation", 2),
    ]  # fmt: skip
    assert {(row.model, row.finish, row.completion) for row in rows} == {("injected", "stop", "")}


def test_the_seed_decides_and_more_paths_keep_the_first() -> None:
    one, two, other = (
        {row.id: row.text for row in made(str, slips={"inject": {}, "paths": paths, "seed": seed})[0]}
        for paths, seed in ((2, 0), (4, 0), (2, 1))
    )
    assert one.items() < two.items()
    assert one != other


def test_a_path_in_which_no_such_mistake_can_be_made_is_a_row_with_a_reason() -> None:
    rows, _ = made(str, slips={"inject": {"errors": ("unit error",)}})
    assert {(row.text, row.finish, row.error, row.incorrect_step) for row in rows} == {
        ("", "failed", "no error of these kinds can be made in this path", None)
    }


def test_only_right_paths_of_a_sampler_are_spoilt() -> None:
    own = {"model": "base", "prompt": SOLVE, "paths": 3}
    replies = ["3 + 2 = 5\nThe answer is 5.", "2 + 2 = 4\nThe answer is 4.", "2 + 3 = 5\nThe answer is 5."]
    rows, _ = made(lambda request: replies[request.index], own=own, slips={"inject": {"of": "own"}, "paths": 4})
    assert [row.origin for row in rows if row.sampler == "slips"] == ["q5/own/0", "q5/own/2"] * 2


def test_a_model_is_told_the_kind_of_error_and_the_path_to_spoil() -> None:
    prompt = {"user": "{{ error_type }}: {{ error }}\n{{ path }}"}
    spoilt = "Step 1: There are 9 boxes.\nStep 2: 9 - 3 = 6 boxes.\nStep 3: The answer is 6."
    rows, calls = made(
        lambda _: spoilt,
        typed={"inject": {"errors": ("misread question",)}, "model": "strong", "prompt": prompt},
    )
    assert calls[-1][1].messages[0].content == (
        "misread question: a condition of the problem, or what it asks for, is misunderstood\n"
        "Step 1: There are 9 boxes.\nStep 2: 9 - 2 = 7 boxes.\nStep 3: The answer is 7."
    )
    assert [(row.origin, row.error_type, row.incorrect_step, row.text) for row in rows] == [
        ("q5", "misread question", 1, spoilt),
        ("q7", "misread question", 2, spoilt),
    ]
    assert {row.model for row in rows} == {STRONG.identity}
    # A path that is left as it was has no incorrect step.
    right = "3 + 2 = 5 pens.\nThe answer is 5."
    rows, _ = made(lambda _: right, typed={"inject": {}, "model": "strong", "prompt": {"user": "{{ path }}"}})
    assert rows[0].incorrect_step is None


LONG = "one\ntwo\nthree\nfour\nThe answer is 5."


def branched(outcome: str, reply: str, path: str = LONG, paths: int = 8) -> tuple[list[Sample], list[list[Request]]]:
    def answer(request: Request) -> str:
        return path if request.model is BASE else reply

    hot = {"branch": {"of": "own", "outcome": outcome}, "model": "strong", "paths": paths, "temperature": 1.2,
           "prompt": {"user": "{{ question }}|{% for step in steps %}{{ step }};{% endfor %}"}}  # fmt: skip
    rows, calls = made(answer, own={"model": "base", "prompt": SOLVE}, hot=hot)
    return [row for row in rows if row.sampler == "hot" and row.question_id == "q5"], calls


def test_a_branch_keeps_the_first_steps_and_goes_on() -> None:
    rows, calls = branched("correct", "Step 9: x\nThe answer is 8.")
    assert [len(requests) for requests in calls] == [2, 8]
    kept = [request.messages[0].content.partition("|")[2] for request in calls[1]]
    assert {"", "one;", "one;two;", "one;two;three;"} >= set(kept)
    assert len(set(kept)) > 1
    for row, begun in zip(rows, kept, strict=True):
        steps = [*filter(None, begun.split(";")), "x", "The answer is 8."]
        assert row.text == "\n".join(f"Step {place}: {step}" for place, step in enumerate(steps, 1))
        assert (row.origin, row.error_type, row.incorrect_step) == ("q5/own/0", None, None)
    assert {request.sampling.temperature for request in calls[1]} == {1.2}


def test_a_model_that_begins_again_is_not_made_to_repeat_itself() -> None:
    assert {len(row.text.splitlines()) for row in branched("correct", LONG)[0]} == {5}


def test_only_right_paths_are_left_unless_any_will_do() -> None:
    wrong = "one\ntwo\nThe answer is 4."
    assert branched("correct", "?", wrong)[0] == []
    assert len(branched("any", "?", wrong)[0]) == 8
