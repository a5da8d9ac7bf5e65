"""Mistakes by program: one step is wrong, all that follows fits it, and the kind and place are as they say."""

import itertools
import json
import os
import random
from pathlib import Path

import pytest

from lema.correctors.inject import ERRORS, inject
from lema.models.reference import correct
from lema.recipe.sampler_schema import PROGRAM_ERRORS
from lema.tasks import Task
from lema.tasks.gsm8k import gsm8k
from lema.tasks.word_problems import word_problems
from lema.text.arithmetic import equations, holds
from lema.text.final_answer import drop_answer_step
from lema.text.steps import split_steps

DATA = Path(os.environ.get("LEMA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
GSM8K = DATA / "gsm8k" / "train.jsonl"
QUESTION = "A crate holds 12 rows of 8 eggs. 20 eggs break. The rest is shared by 4 shops. How many eggs has each?"
PATH = ["12 * 8 = 96 eggs.", "She has 76 left because 96 - 20 = 76.", "76 / 4 = 19 eggs each.", "The answer is 19."]


def spoilt(kind, *, question=QUESTION, path=PATH, seed=0, gold="19", task: Task = gsm8k):
    def wrong(text: str) -> bool:
        answer = task.extract(text)
        return answer is not None and not task.equal(answer, gold)

    kinds = (kind,) if isinstance(kind, str) else kind
    return inject(question, path, kinds, random.Random(seed), wrong)


@pytest.mark.parametrize("kind", ["arithmetic slip", "wrong operation", "wrong operand", "missing step"])
@pytest.mark.parametrize("seed", range(6))
def test_the_step_that_it_names_is_the_first_that_differs(kind: str, seed: int) -> None:
    found = spoilt(kind, seed=seed)
    assert found is not None
    assert found.kind == kind
    places = [place for place, step in enumerate(found.steps, 1) if step != (PATH[place - 1 : place] or [""])[0]]
    assert places[0] == found.incorrect_step
    false = [place for place, step in enumerate(found.steps, 1) if not all(map(holds, equations(step)))]
    assert false == ([found.incorrect_step] if kind == "arithmetic slip" else [])


def test_what_follows_from_a_figure_follows() -> None:
    seen = {found.steps for seed in range(40) if (found := spoilt("wrong operation", seed=seed))}
    assert ("12 * 8 = 96 eggs.", "She has 116 left because 96 + 20 = 116.", "116 / 4 = 29 eggs each.",
            "The answer is 29.") in seen  # fmt: skip


def test_a_step_that_is_left_out() -> None:
    seen = {(found.steps, found.incorrect_step) for seed in range(40) if (found := spoilt("missing step", seed=seed))}
    assert ((*PATH[:2], "The answer is 76."), 3) in seen
    assert (("12 * 8 = 96 eggs.", "96 / 4 = 24 eggs each.", "The answer is 24."), 2) in seen


def test_a_unit_error_needs_units() -> None:
    assert spoilt("unit error") is None
    path = ["2 hours are 2 * 60 = 120 minutes.", "120 / 8 = 15 rounds."]
    found = spoilt("unit error", question="A round takes 8 minutes. How many fit in 2 hours?", path=path, gold="15")
    assert found is not None
    assert found.steps == ("2 hours are 2 * 100 = 200 minutes.", "200 / 8 = 25 rounds.", "The answer is 25.")


def test_a_value_that_the_question_gives_too_is_not_changed() -> None:
    assert spoilt("arithmetic slip", question="Of 9 pens 4 go, of 5 again 2.", path=["9 - 4 = 5.", "5 - 2 = 3."],
                  gold="3").incorrect_step == 2  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [[], ["It is blue."], ["The answer is 19."], ["12 * 8 = 90.", "90 - 71 = 19."], ["x = 19"], ["1 + 1 = 2"] * 50],
)
def test_a_path_that_cannot_be_spoilt(path: list[str]) -> None:
    assert spoilt(PROGRAM_ERRORS, path=path) is None


def test_every_kind_is_explained_to_models() -> None:
    assert set(PROGRAM_ERRORS) < set(ERRORS)


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (["a", "The answer is 5."], ("a",)),
        (["a", "So the final answer is 5."], ("a",)),
        (["a", "The answer is blue because b."], ("a",)),
        (["a", "Half of the answer is 5."], ("a", "Half of the answer is 5.")),
        ([], ()),
    ],
)
def test_a_last_step_with_the_answer_is_dropped(steps: list[str], left: tuple[str, ...]) -> None:
    assert drop_answer_step(steps) == left


def test_generated_problems_can_nearly_all_be_spoilt() -> None:
    done = 0
    for seed, (_, record) in enumerate(itertools.islice(word_problems.generate(seed=3), 100)):  # type: ignore[misc]
        path = split_steps(record["rationale"])
        done += bool(
            spoilt(PROGRAM_ERRORS, question=record["question"], path=path, gold=record["answer"], seed=seed,
                   task=word_problems)
        )  # fmt: skip
    assert done >= 90


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not there; LEMA_TEST_DATA says where to look")
def test_real_rationales() -> None:
    """What is spoilt is wrong, and `reference`, which does not know where, mostly finds the step."""
    done = found = 0
    lines = GSM8K.read_text(encoding="utf-8").splitlines()[:120]
    for seed, line in enumerate(lines):
        reading = gsm8k.read(json.loads(line))
        path = split_steps(reading.rationale or "")
        kinds = random.Random(seed).sample(PROGRAM_ERRORS, len(PROGRAM_ERRORS))
        made = spoilt(kinds, question=reading.text, path=path, gold=reading.gold, seed=seed)
        if made is not None:
            fix = correct(reading.text, path, reading.gold, made.steps)
            done, found = done + 1, found + (fix is not None and fix.incorrect_step == made.incorrect_step)
    assert done >= 0.9 * len(lines)
    assert found >= 0.8 * done
