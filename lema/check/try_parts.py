"""A trial of the user's parts (`pkg.mod:name`): each is called on a tiny sample before anything is paid for.

Each runs in a child process of its own (`lema.check.trial_process`). Our own parts are covered by tests, not tried.
"""

import asyncio
import inspect
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from lema.check.trial_process import PartFailure, Trial, run_trial
from lema.errors import Problem
from lema.filters import GIVEN, Candidate
from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.basic_types import Part
from lema.recipe.load import Draft
from lema.recipe.messages import problem_at, salvage
from lema.recipe.params import Run
from lema.recipe.part_loader import PartError, PartKind, load_part, option_problems
from lema.recipe.yaml import KeyPath
from lema.rows import Correction, Finding, Finish, Message, Question, Sample
from lema.tasks import Reading, Task, Undecided

MAX_RECORDS = 3  # of a source, that a task is tried on

TRIAL_QUESTION = Question("trial-0", "train", "Ann has 3 pens and buys 4. How many pens has she?", "7", "3 + 4 = 7")
TRIAL_SAMPLE = Sample(
    "trial-0/trial/0", TRIAL_QUESTION.id, "trial", 0, "Step 1: 3 + 4 = 8\nStep 2: The answer is 8.", "stop", None,
    "trial", "", "", 9, 9,
)  # fmt: skip


def _trial_candidate(index: int, answer: str | None) -> Candidate:
    """A correction with an answer, the first with a long explanation; without one, a reply that is no correction."""
    explanation = " ".join([f"3 + 4 is {answer}."] * (1 if index else 30)) if answer else None
    solution = f"3 + 4 = {answer}\nThe answer is {answer}." if answer else None
    correction = Correction(
        f"{TRIAL_SAMPLE.id}/c{index}", TRIAL_SAMPLE.id, TRIAL_QUESTION.id, index,
        "parsed" if answer else "malformed", None if answer else "no explanation", solution or "I see no mistake.",
        1 if answer else None, None, explanation, solution, answer,
        "trial", "", "", 9, 9,
    )  # fmt: skip
    return Candidate(TRIAL_QUESTION, TRIAL_SAMPLE, correction, answer == TRIAL_QUESTION.gold if answer else None)


TRIAL_CANDIDATES = (_trial_candidate(0, "7"), _trial_candidate(1, "9"), _trial_candidate(2, None))


def part_problems(draft: Draft, root: Path, run: Run) -> Iterator[Problem]:
    """What is wrong with the parts of the user's that a recipe names, where it names them."""
    for trial in (*_task_trials(draft, root), *_filter_trials(draft), *_backend_trials(draft, run)):
        if message := run_trial(trial, root):
            yield problem_at(draft.tree, trial.path, f"{trial.name} {message}")


def _load_or_none(kind: PartKind, name: str) -> Any:
    """A part; None for one that cannot be loaded, which other rules report."""
    try:
        return load_part(kind, name)
    except PartError:
        return None


def _user_part(kind: PartKind, name: str) -> Any:
    """A part of the user's; None for one of ours."""
    return _load_or_none(kind, name) if ":" in name else None


def _task_trials(draft: Draft, root: Path) -> Iterator[Trial]:
    """Each task once, where it is named first, on records of the sources that it reads or generates."""
    questions, source, base = (draft.sections[key] for key in ("questions", "source", "base"))
    named: list[tuple[KeyPath, str, Iterator[Any]]] = []
    if questions:
        named.append((("questions", "task"), questions.task, _source_records(source, root) if source else iter(())))
    sources: list[tuple[KeyPath, Any]] = [(("source",), source)] if source else []
    for split, one in questions.transfer.items() if questions else ():
        place = ("questions", "transfer", split)
        sources.append(((*place, "source"), one.source))
        if one.task:
            named.append(((*place, "task"), one.task, _source_records(one.source, root)))
    named += [
        ((*path, "generator"), one.generator, _source_records(one, root)) for path, one in sources if one.generator
    ]
    if base and base.pretrain:
        made = _generated_records(base.pretrain.task, base.pretrain.options)
        named.append((("base", "pretrain", "task"), base.pretrain.task, made))
    for name in dict.fromkeys(name for _, name, _ in named):
        if isinstance(task := _user_part("tasks", name), Task):
            path = next(path for path, other, _ in named if other == name)
            records = itertools.chain.from_iterable(records for _, other, records in named if other == name)
            yield Trial(path, name, task.read, partial(try_task, task, records))


def _source_records(source: Any, root: Path) -> Iterator[Any]:
    """A few records of a source that is here: generated ones, or the first lines of a file."""
    if source.generator:
        yield from _generated_records(source.generator, source.options)
    file = root / (source.file or "").replace("{split}", "train")
    if source.file and file.suffix == ".jsonl" and file.is_file():
        with file.open(encoding="utf-8") as lines:
            yield from map(json.loads, itertools.islice((line for line in lines if line.strip()), MAX_RECORDS))


def _generated_records(name: str, options: Mapping[str, Any]) -> Iterator[Any]:
    task = load_part("tasks", name)
    made = task.generate(**options)
    for pair in itertools.islice(
        iter(made) if isinstance(made, Iterable) else _fail(task.generate, "made", made, "pairs"), 9
    ):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)):
            _fail(task.generate, "generated", pair, "a split and a record: a text and a dict")
        yield pair[1]


def _fail(culprit: Any, verb: str, got: Any, wanted: str) -> Any:
    raise PartFailure(f"{verb} {_type_name(got)}, not {wanted}", culprit)


def _type_name(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def try_task(task: Task, records: Iterable[Any]) -> None:
    """Call the functions of a task on records; raises PartFailure."""
    try:
        task.read({})
    except ValueError:
        pass  # as it should be
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        message = f"raised {what} for a record without fields; `read` raises ValueError, saying what is missing"
        raise PartFailure(message, error) from error
    golds = {"7"}
    for record in records:
        if task.counts is None or task.counts(record):
            try:
                reading = task.read(record)
            except ValueError as error:
                raise PartFailure(f"cannot read a record of its source: {error}", error) from error
            _check_reading(task, reading)
            golds.add(reading.gold)
            if task.write and task.read(task.write(reading)).text != reading.text:
                raise PartFailure("`write` made a record that `read` reads as another question", task.write)
    for gold in sorted(golds):
        for text in (f"Step 1: It is {gold}.\nThe answer is {gold}.", "No idea.", ""):
            answer = task.extract(text)
            if not (answer is None or isinstance(answer, str)):
                _fail(task.extract, "extracted", answer, "a text or None")
        same = task.equal(gold, gold)
        if not isinstance(same, bool | Undecided):
            _fail(task.equal, "compared two answers and returned", same, "True, False or an Undecided")
        if same is False:
            raise PartFailure(f"holds the answer {gold!r} to be different from itself", task.equal)


def _check_reading(task: Task, reading: Any) -> None:
    if not isinstance(reading, Reading):
        _fail(task.read, "read a record as", reading, "a Reading")
    for field in ("text", "gold", "rationale"):
        value = getattr(reading, field)
        if not (isinstance(value, str) or (field == "rationale" and value is None)):
            _fail(task.read, f"read a record with {field}", value, "a text")


def _filter_trials(draft: Draft) -> Iterator[Trial]:
    questions, corrections = draft.sections["questions"], draft.sections["corrections"]
    models = {name: _trial_model(name, one) for name, one in (draft.sections["models"] or {}).items()}
    given = {
        "questions": [TRIAL_QUESTION],
        "task": _load_or_none("tasks", questions.task) if questions else None,
        "hint": corrections.hint if corrections else "none",
        "read_file": lambda _: iter(()),
        "models": models,
        "generate": lambda requests: (Completion("Yes. The answer is 7.", "stop") for _ in requests),
    }
    for path, item in draft.tree.items("verdicts", "filters"):
        one = salvage(item, Part)
        part = _user_part("filters", one.use) if one else None
        if one and callable(part) and not option_problems(part, one.options, GIVEN):
            yield Trial(path, one.use, part, partial(try_filter, part, one.options, given))


def try_filter(part: Any, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Call a filter on three candidates; raises PartFailure."""
    parameters = inspect.signature(part).parameters.values()
    positional = [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(positional) > 1:
        message = (
            f"takes {' and '.join(positional)} by position; a filter takes its candidates, options stand after `*`"
        )
        raise PartFailure(message, part)
    asked = {one.name: given[one.name] for one in parameters if one.name in GIVEN}
    found = part(list(TRIAL_CANDIDATES), **options, **asked)
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        _fail(part, "returned", found, "findings: a filter yields one Finding for each candidate")
    count = 0
    for count, finding in enumerate(found, 1):
        if not isinstance(finding, Finding):
            _fail(part, "yielded", finding, "a Finding")
        if isinstance(finding.value, bool) or not isinstance(finding.value, int | float | None):
            _fail(part, "yielded a Finding of", finding.value, "a number or None")
        if not isinstance(finding.reason, str | None):
            _fail(part, "yielded a Finding with the reason", finding.reason, "a text or None")
        if count > len(TRIAL_CANDIDATES):
            break
    if count != len(TRIAL_CANDIDATES):
        more = "more" if count > len(TRIAL_CANDIDATES) else "fewer"
        raise PartFailure(f"yielded {more} findings than candidates; a filter yields one for each", part)


def _backend_trials(draft: Draft, run: Run) -> Iterator[Trial]:
    for label, spec in (draft.sections["models"] or {}).items():
        part = _user_part("models", spec.backend)
        if callable(part) and not option_problems(part, spec.options):  # those are reported by another rule
            model = _trial_model(label, spec)
            call = partial(try_backend, part, model, run)
            yield Trial(("models", label, "backend"), spec.backend, part, call, patient=True)


def _trial_model(label: str, spec: Any) -> Model:
    return Model(
        label, spec.backend, "a trial", name=spec.name, revision=spec.revision, endpoint=spec.endpoint, chat=spec.chat,
        options=spec.options,
    )  # fmt: skip


def try_backend(part: Any, model: Model, run: Run) -> None:
    """Build a worker and ask it twice; raises PartFailure."""
    worker = part(model, run, **model.options)
    if not callable(worker):
        _fail(part, "built", worker, "a worker, which can be called with requests")
    messages = (Message("user", TRIAL_QUESTION.text),)
    requests = [Request(model, messages, Sampling(max_tokens=16), index) for index in (0, 1)]
    replies = worker(requests)
    if inspect.isawaitable(replies):
        replies = asyncio.run(_awaited(replies))
    if not isinstance(replies, list | tuple):
        _fail(worker, "answered with", replies, "a list of Completions")
    for reply in replies:
        if not isinstance(reply, Completion):
            _fail(worker, "answered a request with", reply, "a Completion")
        if not isinstance(reply.text, str) or reply.finish not in get_args(Finish):
            allowed = ", ".join(get_args(Finish))
            raise PartFailure(f"made a Completion without a text, or with a finish that is none of {allowed}", worker)
    if len(replies) != len(requests):
        raise PartFailure(f"answered {len(requests)} requests with {len(replies)} completions", worker)


async def _awaited(replies: Any) -> Any:
    return await replies
