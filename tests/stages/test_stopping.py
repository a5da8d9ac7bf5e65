"""Enough wrong paths: the shortest run of each question's paths, whatever the order of replies."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lema.completions.generate import Generate
from lema.completions.store import Store
from lema.compute.factory import make_executor
from lema.models.types import Completion, Model, Request
from lema.recipe.params import Run
from lema.recipe.sampler_schema import SamplesSpec
from lema.rows import Sample
from lema.stages.common import stable_shuffle
from lema.stages.samples import samples
from tests.stages.rows import BASE, Script, extract, question, task

QUESTIONS = [question(number) for number in range(40)]
GOLD = {row.id: row.gold for row in QUESTIONS}
WEAK = Model("weak", "scripted", "scripted weak", options={"replies": ["The answer is 3.", "Eh.", "The answer is 4."]})
MODELS = {"strong": Model("strong", "openai", "openai strong"), "weak": WEAK}
SOLVE = {"user": "{{ question }}"}
OWN = {"model": "base", "prompt": SOLVE, "paths": 8}


def draw(request: Request) -> float:
    """A number of this path's own, 0 to 1."""
    name = f"{request.model.label} {request.messages[-1].content} {request.index}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32


def careless(request: Request) -> Completion:
    """Wrong in two paths of five, and in one of ten not there at all."""
    if draw(request) < 0.1:
        return Completion("", "failed", "timed out")
    right = request.messages[-1].content.removeprefix("Question ").removesuffix("?")
    return Completion(f"The answer is {right if draw(request) < 0.6 else -1}.", "stop")


def sampled(
    generate: Any, want: dict[str, Any] | None, rows: Iterable[dict[str, Any]] = (), said: list[str] | None = None,
    **samplers: Any,
) -> list[Sample]:  # fmt: skip
    spec = SamplesSpec.model_validate({"samplers": samplers, "want": want})
    made = samples(
        QUESTIONS, BASE, spec=spec, task=task(), models=MODELS, generate=generate, read_file=lambda _: rows,
        log=[].append if said is None else said.append,
    )  # fmt: skip
    return list(made)


def is_wrong(row: Sample) -> bool:
    return row.finish == "stop" and extract(row.text) not in (None, GOLD[row.question_id])


def wrong(rows: Iterable[Sample]) -> Counter[str]:
    return Counter(row.question_id for row in rows if is_wrong(row))


def ids(rows: Iterable[Sample]) -> set[str]:
    return {row.id for row in rows}


@pytest.mark.parametrize("enough", [1, 2, 3])
def test_a_question_gets_the_shortest_run_of_paths_with_enough_wrong_ones(enough: int) -> None:
    expected = set()
    for one in QUESTIONS:
        found = 0
        for row in (row for row in sampled(Script(careless), None, own=OWN) if row.question_id == one.id):
            if found < enough:
                expected.add(row.id)
                found += is_wrong(row)
    assert ids(sampled(Script(careless), {"per_question": enough}, own=OWN)) == expected
    assert len(QUESTIONS) * enough < len(expected) < len(QUESTIONS) * 8


def test_samplers_take_turns_and_share_what_is_enough() -> None:
    two = {"one": OWN, "two": {**OWN, "model": "strong"}}
    rows = sampled(Script(careless), {"per_question": 2}, **two)
    assert set(wrong(rows).values()) <= {1, 2}
    for one in QUESTIONS:
        own = Counter(row.sampler for row in rows if row.question_id == one.id)
        assert abs(own["one"] - own["two"]) <= 1
    begun = sampled(Script(careless), {"per_question": 1}, **two)
    length = Counter(row.question_id for row in begun)
    alone = Counter(row.sampler for row in begun if length[row.question_id] == 1)
    assert min(alone["one"], alone["two"]) > 3


def test_who_does_not_stop_makes_all_paths_in_the_first_round() -> None:
    calls: list[list[Request]] = []

    def generate(requests: Iterable[Request]) -> Iterator[Completion]:
        calls.append(list(requests))
        return map(careless, calls[-1])

    strong = {**OWN, "model": "strong", "paths": 3}
    rows = sampled(generate, {"per_question": 1, "samplers": ("own",)}, own=OWN, strong=strong)
    counts = Counter(row.sampler for row in rows)
    assert counts["strong"] == 3 * len(QUESTIONS)
    assert Counter(request.model.label for request in calls[0]) == {"strong": 120, "base": 40}
    assert {request.model.label for call in calls[1:] for request in call} == {"base"}
    assert max(wrong(row for row in rows if row.sampler == "own").values()) == 1
    assert len(calls) <= 8


@pytest.mark.parametrize(
    "want",
    [
        *({"in_all": 1}, {"in_all": 21}, {"in_all": 60}, {"in_all": 20, "per_question": 2}),
        *({"in_all": 12, "per_question": 1}, {"in_all": 38, "per_question": 1}, {"in_all": 70, "per_question": 3}),
    ],
)
def test_a_total_takes_first_paths_of_all_questions_then_second_ones(want: dict[str, Any]) -> None:
    """The same one by one, without rounds."""
    every = {(row.question_id, row.index): row for row in sampled(Script(careless), None, own=OWN)}
    expected, found = list[Sample](), Counter[str]()
    for index in range(8):
        for name in stable_shuffle(GOLD, 0, str):
            if found[name] < want.get("per_question", 9) and found.total() < want["in_all"]:
                expected.append(every[name, index])
                found[name] += is_wrong(expected[-1])
    rows = sampled(Script(careless), want, own=OWN)
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert wrong(rows).total() == want["in_all"]


def asked(rows: Iterable[Sample]) -> set[str]:
    return {row.question_id for row in rows}


def test_the_seed_decides_which_questions_come_first() -> None:
    want = {"in_all": 9, "per_question": 1}
    one, same, other = (asked(sampled(Script(careless), want | {"seed": seed}, own=OWN)) for seed in (0, 0, 1))
    assert one == same != other


def test_too_few_wrong_paths_are_said_and_are_no_failure() -> None:
    said: list[str] = []
    rows = sampled(Script(careless), {"in_all": 1000}, said=said, own=OWN)
    assert len(rows) == 320
    assert said == [f"wanted 1,000 wrong paths, got {wrong(rows).total()}: there are no more paths to ask for"]
    sampled(Script(careless), {"in_all": 10}, said=said, own=OWN)
    assert len(said) == 1


def test_wrong_paths_of_a_file_count() -> None:
    old = {"import": {"file": "old.jsonl"}}
    there = [{"question": f"Question {number}?", "path": "The answer is -2."} for number in range(30)]
    rows = sampled(Script(careless), {"per_question": 1}, there, old=old, own=OWN)
    assert asked(row for row in rows if row.sampler == "own") == {f"q{number}" for number in range(30, 40)}


def test_paths_made_of_others_are_asked_for_where_those_were_not_enough() -> None:
    hot = {"branch": {"of": "own", "outcome": "any"}, "model": "strong", "prompt": SOLVE, "paths": 8}
    rows = sampled(Script(careless), {"per_question": 3}, own={**OWN, "paths": 2}, hot=hot)
    own = wrong(row for row in rows if row.sampler == "own")
    assert max(own.values()) == 2
    assert max(wrong(rows).values()) == 3
    spoilt = {"inject": {}, "model": "strong", "prompt": {"user": "{{ path }}"}, "paths": 4}
    rows = sampled(Script(careless), {"per_question": 1}, own=OWN, spoilt=spoilt)
    done = {name for name, count in wrong(row for row in rows if row.sampler == "own").items() if count}
    assert not done & asked(row for row in rows if row.sampler == "spoilt")


def test_the_order_in_which_replies_are_made_decides_nothing() -> None:
    def backwards(requests: Iterable[Request]) -> Iterator[Completion]:
        given = list(requests)
        made = {at: careless(given[at]) for at in sorted(range(len(given)), key=lambda at: draw(given[at]))}
        return (made[at] for at in range(len(given)))

    def one_by_one(requests: Iterable[Request]) -> Iterator[Completion]:
        return map(careless, requests)

    want = {"per_question": 2, "in_all": 25}
    first, second, third = (sampled(one, want, own=OWN) for one in (Script(careless), backwards, one_by_one))
    assert first == second == third


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Generate]:
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))

    def make(place: str, **run: Any) -> Generate:
        settings = Run(**run)
        return Generate(
            Store(tmp_path / place / "journal", tmp_path / place / "packs"), make_executor(settings), settings
        )

    return make


SCRIPTED = {"model": "weak", "prompt": SOLVE, "paths": 6}


@pytest.mark.parametrize("where", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_rounds_buy_once_and_more_buys_what_is_new(
    make: Callable[..., Generate], where: Any, request: pytest.FixtureRequest
) -> None:
    if where == "ray":
        request.getfixturevalue("ray")
    few, more = {"per_question": 1, "in_all": 20}, {"per_question": 2, "in_all": 50}
    alone = sampled(make("alone", executor="local", batch=1), few, weak=SCRIPTED)
    first = make("shared", executor=where, batch=7)
    assert sampled(first, few, weak=SCRIPTED) == alone
    assert first.bought == {"weak": len(alone)}
    again = make("shared", executor="local")
    assert sampled(again, few, weak=SCRIPTED) == alone
    assert (again.hits, again.bought) == ({"weak": len(alone)}, {})
    raised = make("shared", executor="local")
    rows = sampled(raised, more, weak=SCRIPTED)
    assert ids(alone) < ids(rows)
    assert raised.bought == {"weak": len(rows) - len(alone)}
