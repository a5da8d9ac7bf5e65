"""`lema check` finds what is wrong with parts of the user's by trying them: none is bought for first."""

import itertools
import socket

import pytest

from lema.check import trial_process
from lema.check.check import check

FILTER = "from lema.filters import Finding\n\n\ndef part(candidates{parameters}):\n{body}"
TASK = """\
import operator
from lema.tasks import Reading, Task


def read(record):
    {read}


def extract(text):
    {extract}


def generate(*, seed=0):
    {generate}


part = Task("part", read, extract, {equal}, generate)
"""
GOOD_TASK = {
    "read": "\n    ".join(
        [
            'if "question" not in record:',
            '    raise ValueError("needs `question`")',
            'return Reading(record["question"], record["answer"], None)',
        ]
    ),
    "extract": 'return text.rpartition("The answer is ")[2].rstrip(".") or None',
    "generate": 'while True:\n        yield "train", {"question": "1 + 2?", "answer": "3"}',
    "equal": "operator.eq",
}
BACKEND = """\
from lema.models.types import Completion


def part(model, run):
    def worker(requests):
        {body}
    return worker
"""
count = itertools.count()


def messages(project, kind, text):
    """What check says of a recipe that uses the text as a part of a kind, and the name of the part's file."""
    name = f"lema_trial_{next(count)}"
    project.write(f"recipes/{name}.py", text)
    part = f"recipes.{name}:part"
    recipe = {
        "filter": f"verdicts:\n  filters:\n    - '{part}'",
        "task": f"questions: {{task: '{part}'}}\nsource: {{generator: '{part}'}}",
        "backend": f"models:\n  strong:\n    backend: '{part}'",
    }[kind]
    project.write("recipes/mine.yaml", f"extends: good.yaml\n{recipe}\n")
    return [str(problem) for problem in check(["mine"], project.root, {}).problems], f"recipes/{name}.py"


FILTERS = {
    "good": ("", "    for _ in candidates:\n        yield Finding(1.5, None)\n", None),
    "a list is as good": ("", "    return [Finding(None, 'no') for _ in candidates]\n", None),
    "second position": (
        ", times=2",
        "    yield from (Finding(1) for _ in candidates)\n",
        "takes candidates and times by position; a filter takes its candidates, options stand after `*` ({file}:4)",
    ),
    "no generator": (
        "",
        "    return True\n",
        "returned a bool, not findings: a filter yields, or returns in a list, one Finding for each candidate",
    ),
    "nothing": ("", "    pass\n", "returned None, not findings"),
    "raises": (
        "",
        "    for one in candidates:\n        yield Finding(len(one.correction.solution))\n",
        "raised TypeError: object of type 'NoneType' has no len() ({file}:6)",
    ),
    "booleans": ("", "    yield from (True for _ in candidates)\n", "yielded a bool, not a Finding ({file}:4)"),
    "boolean value": ("", "    yield from (Finding(True) for _ in candidates)\n", "yielded a Finding of a bool, not a"),
    "too few": (
        "",
        "    yield Finding(1)\n",
        "yielded fewer findings than candidates; a filter yields, or returns in a list, one Finding for each",
    ),
    "only those that it drops": (
        "",
        "    for one in candidates:\n        if len((one.correction.explanation or '').split()) < 8:\n"
        "            yield Finding(0, 'short')\n",
        "yielded fewer findings than candidates; a filter yields, or returns in a list, one Finding for each",
    ),
    "endless": ("", "    while True:\n        yield Finding(1)\n", "yielded more findings than candidates"),
    "exits": ("", "    raise SystemExit\n", "ended the process that tried it ({file}:4)"),
    "what it asks for": (
        ", *, task, questions, hint, models, generate, read_file",
        "    assert task.name == 'word_problems' and questions and hint == 'none' and list(models) == ['strong']\n"
        "    assert list(read_file('x')) == [] and len(list(generate([1, 2]))) == 2\n"
        "    yield from (Finding(1) for _ in candidates)\n",
        None,
    ),
}


def test_an_option_by_position_is_one_problem(project):
    part = FILTER.format(parameters=", times=2", body="    yield from (Finding(1) for _ in candidates)\n")
    project.write("recipes/lema_trial_by_position.py", part)
    project.edit("recipes/good.yaml", "max_tokens: {limit", "'recipes.lema_trial_by_position:part': {times")
    (problem,) = check(["good"], project.root, {}).problems
    assert "takes candidates and times by position" in problem.message


def test_a_record_that_makes_read_fail_is_named(project):
    read = "return Reading(record['question'] if record else '', '3', None)"
    project.write("recipes/lema_trial_rows.py", TASK.format(**(GOOD_TASK | {"read": read})))
    project.write("data/rows.jsonl", '{"question": "?"}\n\n{"text": "?"}\n')
    source = "source: {generator: null, file: data/rows.jsonl, test_from: train}"
    project.write(
        "recipes/mine.yaml", f"extends: good.yaml\n{source}\nquestions: {{task: 'recipes.lema_trial_rows:part'}}\n"
    )
    (problem,) = check(["mine"], project.root, {}).problems
    assert problem.message.endswith(
        "raised KeyError: 'question' for data/rows.jsonl:3; for a record that it cannot take `read` raises ValueError, "
        "saying what is missing (recipes/lema_trial_rows.py:6)"
    )


@pytest.mark.parametrize("kind", FILTERS)
def test_filters(project, kind):
    parameters, body, expected = FILTERS[kind]
    said, file = messages(project, "filter", FILTER.format(parameters=parameters, body=body))
    assert len(said) == (expected is not None), said
    for line in said:
        assert line.startswith("recipes/mine.yaml:4:7: verdicts.filters.0: recipes.lema_trial_"), line
        assert expected.format(file=file) in line


TASKS = {
    "good": ({}, None),
    "KeyError": (
        {"read": 'return Reading(record["question"], "3", None)'},
        "raised KeyError: 'question' for a record without fields; for a record that it cannot take `read` raises "
        "ValueError, saying what is missing ({file}:6)",
    ),
    "dict": ({"read": 'return {"text": "1 + 2?"}'}, "read a record as a dict, not a Reading ({file}:5)"),
    "another source": (
        {"read": 'raise ValueError("needs `n`")'},
        "cannot read record 1 of its generator: needs `n` ({file}:6)",
    ),
    "no gold": ({"read": 'return Reading("1 + 2?", 3, None)'}, "read a record with gold a int, not a text ({file}:5)"),
    "extract": ({"extract": "return [text]"}, "extracted a list, not a text or None ({file}:11)"),
    "extract raises": ({"extract": "return text.index('!')"}, "raised ValueError: substring not found ({file}:12)"),
    "equal": ({"equal": "lambda a, b: 'yes'"}, "compared two answers and returned a str, not True, False or an"),
    "never equal": ({"equal": "lambda a, b: False"}, "holds the answer '3' to be different from itself ({file}:"),
    "pairs": ({"generate": "yield {'question': 1}"}, "generated a dict, not a split and a record: a text and a dict"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_tasks(project, kind):
    changes, expected = TASKS[kind]
    said, file = messages(project, "task", TASK.format(**(GOOD_TASK | changes)))
    assert len(said) == (expected is not None), said
    for line in said:
        assert line.startswith("recipes/mine.yaml:2:19: questions.task: recipes.lema_trial_"), line
        assert expected.format(file=file) in line


BACKENDS = {
    "good": ("return [Completion('7', 'stop') for _ in requests]", None),
    "texts": ("return ['7' for _ in requests]", "answered a request with a str, not a Completion ({file}:5)"),
    "one text": ("return 'The answer is 7.'", "answered with a str, not a list of Completions ({file}:5)"),
    "too few": ("return [Completion('7', 'stop')]", "answered 2 requests with 1 completions ({file}:5)"),
    "unknown finish": ("return [Completion('7', 'done') for _ in requests]", "with a finish that is none of stop, "),
    "raises": ("raise RuntimeError('no weights')", "raised RuntimeError: no weights ({file}:6)"),
    "asks the network": (
        "import socket\n        socket.create_connection(('127.0.0.1', {port}))\n        return []",
        None,
    ),
}


@pytest.mark.parametrize("kind", BACKENDS)
def test_backends(project, kind):
    body, expected = BACKENDS[kind]
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        text = BACKEND.format(body=body.replace("{port}", str(server.getsockname()[1])))
        said, file = messages(project, "backend", text)
        with pytest.raises(BlockingIOError):
            server.accept()  # nobody has connected
    assert len(said) == (expected is not None), said
    for line in said:
        assert line.startswith("recipes/mine.yaml:4:14: models.strong.backend: recipes.lema_trial_"), line
        assert expected.format(file=file) in line


def test_a_part_with_a_misspelt_option_is_not_tried(project):
    """One message says what is allowed; a TypeError from a call would say less."""
    project.write("recipes/trial_option.py", BACKEND.format(body="return []").replace("run", "run, *, every=3", 1))
    project.write(
        "recipes/mine.yaml",
        "extends: good.yaml\nmodels:\n  strong: {backend: 'recipes.trial_option:part', options: {evry: 2}}\n",
    )
    (problem,) = check(["mine"], project.root, {}).problems
    assert str(problem).endswith("options.evry: unknown option 'evry'; did you mean 'every'? allowed: every")


@pytest.mark.parametrize(("kind", "found"), [("filter", True), ("backend", False)])
def test_a_part_that_hangs_is_killed(project, monkeypatch, kind, found):
    monkeypatch.setattr(trial_process, "TIME_LIMIT", 0.5)
    hang = "while True: pass"
    text = {"filter": FILTER.format(parameters="", body=f"    {hang}\n"), "backend": BACKEND.format(body=hang)}[kind]
    said, file = messages(project, kind, text)
    assert [line.partition(":part ")[2] for line in said] == [f"did not finish in 0.5 seconds ({file}:4)"] * found
