"""The prompts that come with the project: every one renders, and its worked examples are right."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lema.correctors.inject import ERRORS
from lema.recipe.basic_types import Prompt
from lema.recipe.prompt import render, reply
from lema.tasks import Task
from lema.tasks.csqa import csqa
from lema.tasks.gsm8k import gsm8k
from lema.tasks.math import math
from lema.text.arithmetic import equations, holds
from lema.text.correction_format import (
    ELLIPSIS,
    Malformed,
    Parsed,
    expand_ellipsis,
    parse_correction,
    parse_correction_json,
)
from lema.text.steps import number_steps, split_steps

FILES = sorted((Path(__file__).parents[1] / "recipes" / "prompts").rglob("*.yaml"))
VARIABLES: dict[str, Any] = {
    "error_type": "wrong operation",
    "error": "the right numbers are put together by another operation",
    "question": "Ada has 3 pens and buys 4. How many has she?",
    "path": "Step 1: 3 + 4 = 8\nStep 2: The answer is 8.",
    "steps": ["3 + 4 = 7"],
    "answer": "7",
    "gold": "7",
    "rationale": "3 + 4 = 7",
    "incorrect_step": 1,
    "explanation": "3 + 4 is 7.",
    "solution": ["Step 1: 3 + 4 = 7", "Step 2: The answer is 7."],
    "full": ["Step 1: 3 + 4 = 7", "Step 2: The answer is 7."],
    "before": [],
    "wrong": "3 + 4 = 8",
    "after": ["3 + 4 = 7"],
}

# Variants whose solutions are written out.
WHOLE = ("_rewrite", "_restart", "_stepless")


def load(file: Path) -> Prompt:
    return Prompt.model_validate_json(json.dumps(yaml.safe_load(file.read_text(encoding="utf-8"))))


def prompt(name: str) -> Prompt:
    return load(next(file for file in FILES if file.stem == name))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_renders(file: Path) -> None:
    messages = render(load(file), VARIABLES)
    assert VARIABLES["question"] in messages[-1].content
    assert all(message.content == message.content.strip() for message in messages)


@pytest.mark.parametrize("name", ["cot", "paper_cot", "solve_word_problems"])
def test_chain_of_thought_ends_with_the_answer(name: str) -> None:
    between = " " if name == "paper_cot" else "\n"
    assert reply(prompt(name), VARIABLES) == f"3 + 4 = 7{between}The answer is 7."


@pytest.mark.parametrize("name", ["solve_word_problems", "solve_gsm8k"])
def test_worked_examples_are_right(name: str) -> None:
    example = prompt(name)
    assert len(example.demonstrations) >= 3
    for demonstration in example.demonstrations:
        text = reply(example, demonstration)
        assert text.splitlines()[-1].rpartition(": ")[2].startswith("The answer is ")
        found = [equation for step in split_steps(text) for equation in equations(step)]
        assert found
        assert all(holds(equation) for equation in found)
        assert gsm8k.extract(text) == found[-1].right


@pytest.mark.parametrize(
    ("name", "without"),
    [
        *((name, ()) for name in ("", "_rewrite", "_restart", "_answer", "_rationale", "_located", "_json")),
        ("_brief", ("explanation",)),
        ("_stepless", ("incorrect_step",)),
    ],
)
def test_worked_corrections_are_right(name: str, without: tuple[str, ...]) -> None:
    example = prompt(f"correct_gsm8k{name}")
    assert len(example.demonstrations) == 4
    read = parse_correction_json if name == "_json" else parse_correction
    for demonstration in example.demonstrations:
        path = split_steps(demonstration["path"])
        text = reply(example, demonstration)
        parsed = read(text, steps=len(path), without=without)
        assert isinstance(parsed, Parsed)
        assert (parsed.explanation is None, parsed.incorrect_step is None) == tuple(
            field in without for field in ("explanation", "incorrect_step")
        )
        assert (ELLIPSIS in parsed.solution) == (name not in WHOLE and parsed.incorrect_step != 1)
        if without:
            assert isinstance(read(text, steps=len(path)), Malformed)
        if name == "_answer":
            assert str(demonstration["gold"]) == gsm8k.extract("\n".join(parsed.solution))
        solution = expand_ellipsis(parsed.solution, parsed.incorrect_step or 1, path)
        found = [equation for step in solution for equation in equations(step)]
        assert all(holds(equation) for equation in found)
        answer = gsm8k.extract("\n".join(solution))
        assert answer == found[-1].right != gsm8k.extract(demonstration["path"])


# Answers of the worked examples, worked out without their solutions.
GOLDS = {
    "Find all solutions of $2x": f"{(5 - 7) / 4}, {(5 + 7) / 4}",
    "What is the remainder": str(3**10 % 7),
    "The legs of": f"\\sqrt{{{6**2 + 10**2}}}",
    "For which real numbers": f"({2 - 5}, {2 + 5})",
    "Let $f(x)": str(3 * (-2) ** 2 - 4 * (-2) + 1),
    "A bag holds": f"{4 * 3}/{10 * 9}",
    "Find all real solutions of $\\sqrt": ", ".join(str(x) for x in (-2, 3) if x >= 0 and x + 6 == x * x),
    "A circle touches": f"{10 * 10}-{5 * 5}\\pi",
    "Where do people go to borrow": "(B) library",
    "How do you feel right after": "(A) tired",
    "What would a hiker": "(C) vacuum flask",
    "It has rained all night": "(D) wet",
    "Where do you put milk": "(C) fridge",
    "Ann's eyes": "(B) go to bed",
    "What may happen to you": "(A) getting wet",
    "Where does a sailor": "(B) ship",
}


def gold(demonstration: Any) -> str:
    return next(gold for start, gold in GOLDS.items() if demonstration["question"].startswith(start))


def reaches(task: Task, text: str, gold: str) -> bool:
    answer = task.extract(text)
    return answer is not None and task.equal(answer, gold) is True


def sums(text: str) -> list[tuple[str, str]]:
    """The two sides of every "=" between formulas without an unknown."""
    sides = [formula.split("=") for formula in re.findall(r"\$([^$]*=[^$]*)\$", text)]
    pairs = [pair for chain in sides for pair in pairwise(chain)]
    unknown = re.compile(r"(?<![\\a-z])[a-z]|[<>]")
    return [(left, right) for left, right in pairs if not unknown.search(left) and not unknown.search(right)]


@pytest.mark.parametrize(("name", "task"), [("solve_math", math), ("solve_csqa", csqa)])
def test_worked_solutions_reach_their_answer(name: str, task: Task) -> None:
    example = prompt(name)
    assert len(example.demonstrations) == 4
    for demonstration in example.demonstrations:
        text = reply(example, demonstration)
        assert reaches(task, text, gold(demonstration))
        assert all(math.equal(left, right) is True for left, right in sums(text))


@pytest.mark.parametrize(("name", "task"), [("correct_math", math), ("correct_csqa", csqa)])
def test_worked_corrections_mend_a_wrong_answer(name: str, task: Task) -> None:
    example = prompt(name)
    assert len(example.demonstrations) == 4
    for demonstration in example.demonstrations:
        path = split_steps(demonstration["path"]) if name == "correct_math" else tuple(demonstration["steps"])
        parsed = parse_correction(reply(example, demonstration), steps=len(path))
        assert isinstance(parsed, Parsed)
        assert parsed.incorrect_step == demonstration.get("incorrect_step")
        solution = "\n".join(expand_ellipsis(parsed.solution, parsed.incorrect_step, path))
        assert reaches(task, solution, gold(demonstration))
        assert not reaches(task, "\n".join(path), gold(demonstration))
        assert all(math.equal(left, right) is True for left, right in sums(solution))
        before = "\n".join(path[: (parsed.incorrect_step or 1) - 1])
        assert all(math.equal(left, right) is True for left, right in sums(before))


def test_the_worked_formulas_are_checked() -> None:
    texts = [reply(prompt(name), one) for name in ("solve_math", "correct_math") for one in prompt(name).demonstrations]
    assert len([pair for text in texts for pair in sums(text)]) > 15


@pytest.mark.parametrize("name", ["solve_csqa", "correct_csqa"])
def test_every_candidate_is_looked_at(name: str) -> None:
    for demonstration in prompt(name).demonstrations:
        candidates = re.findall(r"\([A-E]\) [^,.]+", demonstration["question"])
        assert len(candidates) == 5
        for lines in (demonstration["steps"], demonstration.get("solution", demonstration["steps"])):
            assert [line.partition(":")[0] for line in lines[:5]] == candidates


def test_a_training_format_without_a_step_holds_a_whole_correction() -> None:
    format_ = prompt("paper_correction_csqa")
    solution = ("(A) bank: it keeps money.", "The answer is (A) bank.")
    variables = {**VARIABLES, "explanation": "A library keeps books.", "solution": list(solution)}
    whole = render(format_, variables)[-1].content.rpartition("\n")[2] + " " + reply(format_, variables)
    assert parse_correction(whole) == Parsed(None, None, "A library keeps books.", solution)


@pytest.mark.parametrize("name", ["correction", "paper_correction"])
def test_a_training_format_holds_a_whole_correction(name: str) -> None:
    format_ = prompt(name)
    cue = render(format_, VARIABLES)[-1].content
    text = reply(format_, VARIABLES)
    whole = cue.rpartition("\n")[2] + " " + text if name == "paper_correction" else text
    solution = ("3 + 4 = 7", "The answer is 7.")
    assert parse_correction(whole) == Parsed(1, None, "3 + 4 is 7.", solution)
    assert number_steps(solution) in text


CORRECTED: dict[str, Any] = {
    **VARIABLES,
    "path": "Step 1: 3 + 4 = 7\nStep 2: 7 + 1 = 9\nStep 3: The answer is 9.",
    "steps": ["3 + 4 = 7", "7 + 1 = 9", "The answer is 9."],
    "incorrect_step": 2,
    "explanation": "7 + 1 is 8.",
    "solution": ["...", "Step 2: 7 + 1 = 8", "Step 3: The answer is 8."],
    "full": ["Step 1: 3 + 4 = 7", "Step 2: 7 + 1 = 8", "Step 3: The answer is 8."],
    "before": ["3 + 4 = 7"],
    "wrong": "7 + 1 = 9",
    "after": ["7 + 1 = 8"],
    "answer": "8",
}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("rewrite", ["Incorrect Step: Step 2.", "Explanation: 7 + 1 is 8.", "Correct Solution:", *CORRECTED["full"]]),
        ("critique", ["Incorrect Step: Step 2.", "Explanation: 7 + 1 is 8."]),
        (
            "inline",
            [*CORRECTED["steps"][:2], *("Wait, that step is wrong. 7 + 1 is 8.", "7 + 1 = 8", "The answer is 8.")],
        ),
        ("tagged_wrong", CORRECTED["steps"]),
        ("paper_without_step", ["7 + 1 is 8.", "Correct Solution:", "{", *CORRECTED["solution"], "}"]),
        ("paper_without_explanation", ["Step 2.", "Correct Solution:", "{", *CORRECTED["solution"], "}"]),
        ("paper_without_solution", ["Step 2.", "Explanation: 7 + 1 is 8."]),
    ],
)
def test_a_format_says_its_part_of_a_correction(name: str, lines: list[str]) -> None:
    assert reply(prompt(name), CORRECTED).split("\n") == lines
    shown = render(prompt(name), CORRECTED)[-1].content
    assert "7 + 1 = 8" not in shown
    assert (CORRECTED["path"] in shown) is (name not in ("inline", "tagged_wrong"))


def test_tags_ask_for_opposites() -> None:
    right, wrong = (render(prompt(f"tagged_{kind}"), CORRECTED)[-1].content for kind in ("right", "wrong"))
    assert right.replace("a correct", "an incorrect") == wrong
    assert reply(prompt("tagged_right"), VARIABLES) == "3 + 4 = 7\nThe answer is 7."


def test_worked_injections_are_wrong_and_begin_right() -> None:
    for demonstration in prompt("inject_gsm8k").demonstrations:
        right, spoilt = split_steps(demonstration["path"]), demonstration["spoilt"]
        assert ERRORS[demonstration["error_type"]] == demonstration["error"]
        assert gsm8k.extract("\n".join(right)) != gsm8k.extract("\n".join(spoilt))
        assert right[0] == spoilt[0]
        assert all(holds(equation) for step in (*right, *spoilt) for equation in equations(step))


def test_worked_locations_are_those_of_the_corrections() -> None:
    found = [(one["path"], one["incorrect_step"]) for one in prompt("locate_gsm8k").demonstrations]
    assert found == [(one["path"], one["incorrect_step"]) for one in prompt("correct_gsm8k").demonstrations]
