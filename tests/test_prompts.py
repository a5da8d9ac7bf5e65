"""The prompts that come with the project: every one renders, and its worked examples are right."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lema.arithmetic import equations, holds
from lema.prompt import render, reply
from lema.recipe import Prompt
from lema.reply import Parsed, expand, parse
from lema.steps import number, split
from lema.tasks.gsm8k import gsm8k

FILES = sorted((Path(__file__).parents[1] / "recipes" / "prompts").rglob("*.yaml"))
VARIABLES: dict[str, Any] = {
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


def load(file: Path) -> Prompt:
    return Prompt.model_validate_json(json.dumps(yaml.safe_load(file.read_text(encoding="utf-8"))))


def prompt(name: str) -> Prompt:
    return load(next(file for file in FILES if file.stem == name))


def test_there_are_prompts() -> None:
    assert {file.stem for file in FILES} >= {
        *("solve_word_problems", "solve_gsm8k", "correct_gsm8k", "correct_reference", "judge"),
        *("cot", "correction", "paper_cot", "paper_correction"),
    }


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
        found = [equation for step in split(text) for equation in equations(step)]
        assert found
        assert all(holds(equation) for equation in found)
        assert gsm8k.extract(text) == found[-1].right


def test_worked_corrections_are_right() -> None:
    example = prompt("correct_gsm8k")
    assert len(example.demonstrations) == 4
    for demonstration in example.demonstrations:
        path = split(demonstration["path"])
        parsed = parse(reply(example, demonstration), steps=len(path))
        assert isinstance(parsed, Parsed)
        solution = expand(parsed.solution, parsed.incorrect_step, path)
        found = [equation for step in solution for equation in equations(step)]
        assert all(holds(equation) for equation in found)
        answer = gsm8k.extract("\n".join(solution))
        assert answer == found[-1].right != gsm8k.extract(demonstration["path"])


@pytest.mark.parametrize("name", ["correction", "paper_correction"])
def test_a_training_format_holds_a_whole_correction(name: str) -> None:
    format_ = prompt(name)
    cue = render(format_, VARIABLES)[-1].content
    text = reply(format_, VARIABLES)
    whole = cue.rpartition("\n")[2] + " " + text if name == "paper_correction" else text
    solution = ("3 + 4 = 7", "The answer is 7.")
    assert parse(whole) == Parsed(1, None, "3 + 4 is 7.", solution)
    assert number(solution) in text


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
            [
                *("3 + 4 = 7", "7 + 1 = 9", "Wait, that step is wrong. 7 + 1 is 8.", "7 + 1 = 8"),
                "The answer is 8.",
            ],
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
