"""The prompts that come with the project: every one renders, and its worked examples are right."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lema.arithmetic import equations, holds
from lema.prompt import render, reply
from lema.recipe import Prompt
from lema.reply import ELLIPSIS, Malformed, Parsed, expand, parse, parse_json
from lema.stages._inject import ERRORS
from lema.steps import number, split
from lema.tasks.gsm8k import gsm8k

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
}

# Variants whose solutions are written out.
WHOLE = ("_rewrite", "_restart", "_stepless")


def load(file: Path) -> Prompt:
    return Prompt.model_validate_json(json.dumps(yaml.safe_load(file.read_text(encoding="utf-8"))))


def prompt(name: str) -> Prompt:
    return load(next(file for file in FILES if file.stem == name))


def test_there_are_prompts() -> None:
    assert {file.stem for file in FILES} >= {
        *("solve_word_problems", "solve_gsm8k", "correct_gsm8k", "correct_reference"),
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
    read = parse_json if name == "_json" else parse
    for demonstration in example.demonstrations:
        path = split(demonstration["path"])
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
        solution = expand(parsed.solution, parsed.incorrect_step or 1, path)
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


def test_worked_injections_are_wrong_and_begin_right() -> None:
    for demonstration in prompt("inject_gsm8k").demonstrations:
        right, spoilt = split(demonstration["path"]), demonstration["spoilt"]
        assert ERRORS[demonstration["error_type"]] == demonstration["error"]
        assert gsm8k.extract("\n".join(right)) != gsm8k.extract("\n".join(spoilt))
        assert right[0] == spoilt[0]
        assert all(holds(equation) for step in (*right, *spoilt) for equation in equations(step))


def test_worked_locations_are_those_of_the_corrections() -> None:
    found = [(one["path"], one["incorrect_step"]) for one in prompt("locate_gsm8k").demonstrations]
    assert found == [(one["path"], one["incorrect_step"]) for one in prompt("correct_gsm8k").demonstrations]
