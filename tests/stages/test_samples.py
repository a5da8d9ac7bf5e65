from typing import Any

import pytest

from lema.errors import RunError
from lema.models import Completion, Model, Request, key
from lema.recipe import SamplesSpec
from lema.rows import Sample
from lema.stages.samples import samples
from tests.stages.rows import BASE, Script, question

QUESTIONS = [question(1), question(2), question(3, "test")]
STRONG = Model("strong", "openai", "openai strong-1")
SOLVE = {"user": "{{ question }}"}


def sampled(generate: Script, rows: list[dict[str, Any]] | None = None, **samplers: Any) -> list[Sample]:
    spec = SamplesSpec.model_validate({"samplers": samplers})
    models = {"strong": STRONG}
    return list(
        samples(QUESTIONS, BASE, spec=spec, models=models, generate=generate, read_file=lambda _: iter(rows or []))
    )


def test_every_sampler_asks_every_training_question() -> None:
    generate = Script(lambda request: Completion(f"{request.model.label} {request.index}", "stop", None, 7, 2))
    made = sampled(
        generate, few={"model": "base", "prompt": SOLVE}, many={"model": "strong", "prompt": SOLVE, "paths": 2}
    )
    assert [(row.id, row.text) for row in made] == [
        ("q1/few/0", "base 0"),
        ("q2/few/0", "base 0"),
        ("q1/many/0", "strong 0"),
        ("q1/many/1", "strong 1"),
        ("q2/many/0", "strong 0"),
        ("q2/many/1", "strong 1"),
    ]
    assert [row.completion for row in made] == [key(request) for request in generate.asked]
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
        return {key(request) for request in generate.asked}

    one = {"model": "base", "prompt": SOLVE}
    few, more = keys(one={**one, "paths": 2}), keys(one={**one, "paths": 3}, two={**one, "seed": 5})
    assert few < more
    assert len(more) - len(few) == 2 + 2


def imported(*rows: dict[str, Any]) -> list[Sample]:
    return sampled(Script("?"), list(rows), old={"import": {"file": "old.jsonl"}})


def test_imported_paths_belong_to_the_question_of_the_same_text() -> None:
    made = imported(
        {"question": "Question  2?\n", "path": "2 - 1 = 1"},
        {"question": "Question 9?", "path": "never asked"},
        {"question": "Question 3?", "path": "a test question"},
        {"question": "Question 2?", "path": ["first", "second"]},
    )
    assert [(row.id, row.text, row.finish, row.model, row.completion) for row in made] == [
        ("q2/old/0", "2 - 1 = 1", "stop", "import", ""),
        ("q2/old/1", "Step 1: first\nStep 2: second", "stop", "import", ""),
    ]


def test_imported_and_sampled_paths_stand_side_by_side() -> None:
    rows = [{"ask": "Question 1?", "tried": "1"}]
    files = {"file": "old.jsonl", "question": "ask", "path": "tried"}
    made = sampled(Script("?"), rows, old={"import": files}, new={"model": "base", "prompt": SOLVE})
    assert [row.id for row in made] == ["q1/old/0", "q1/new/0", "q2/new/0"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Question 1?"}, "old.jsonl, row 1: no field 'path'; it has: question"),
        ({"question": "Question 1?", "path": None}, "old.jsonl, row 1: 'path' is neither a text nor a list of steps"),
        ({"question": "Other?", "path": ""}, "no row of old.jsonl belongs to a training question"),
    ],
)
def test_what_cannot_be_imported(row: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        imported(row)


def test_requests_are_all_handed_over_at_once() -> None:
    """Several endpoints are busy at the same time only when one call knows of all requests."""
    calls: list[list[Request]] = []

    def generate(requests: Any) -> Any:
        calls.append(list(requests))
        return (Completion("?", "stop") for _ in calls[-1])

    one = {"model": "base", "prompt": SOLVE}
    sampled(generate, a=one, b={**one, "model": "strong"})  # type: ignore[arg-type]
    assert [len(requests) for requests in calls] == [4]
