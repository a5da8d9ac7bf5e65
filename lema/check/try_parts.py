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
from typing import Any, NoReturn, get_args

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
READS = "for a record that it cannot take `read` raises ValueError, saying what is missing"
YIELDS = "a filter yields, or returns in a list, one Finding for each"

TRIAL_QUESTION = Question("trial-0", "train", "Ann has 3 pens and buys 4. How many pens has she?", "7", "3 + 4 = 7")
TRIAL_SAMPLE = Sample(
    "trial-0/trial/0", TRIAL_QUESTION.id, "trial", 0, "Step 1: 3 + 4 = 8\nStep 2: The answer is 8.", "stop", None,
    "trial", "", "", 9, 9,
)  # fmt: skip
Records = Iterator[tuple[str, Any]]  # each with its place, as messages have it


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
    named: dict[str, tuple[KeyPath, list[Records]]] = {}

    def add(path: KeyPath, name: str | None, records: Records) -> None:
        if name and ":" in name:
            named.setdefault(name, (path, []))[1].append(records)

    questions, source, base = (draft.sections[key] for key in ("questions", "source", "base"))
    sources: list[tuple[KeyPath, Any]] = [(("source",), source)] if source else []
    if questions:
        add(("questions", "task"), questions.task, _source_records(source, root) if source else iter(()))
        for split, one in questions.transfer.items():
            place = ("questions", "transfer", split)
            sources.append(((*place, "source"), one.source))
            add((*place, "task"), one.task, _source_records(one.source, root))
    for path, one in sources:
        add((*path, "generator"), one.generator, _source_records(one, root))
    if base and (spec := base.pretrain):
        add(("base", "pretrain", "task"), spec.task, _generated_records(spec.task, spec.options))
    for name, (path, records) in named.items():
        if isinstance(task := _load_or_none("tasks", name), Task):
            yield Trial(path, name, task.read, partial(try_task, task, itertools.chain(*records)))


def _source_records(source: Any, root: Path) -> Records:
    """A few records of a source that is here: generated ones, or the first lines of a file."""
    if source.generator:
        yield from _generated_records(source.generator, source.options)
    name = (source.file or "").replace("{split}", "train")
    if name.endswith(".jsonl") and (root / name).is_file():
        with (root / name).open(encoding="utf-8") as lines:
            full = ((at, line) for at, line in enumerate(lines, 1) if line.strip())
            yield from ((f"{name}:{at}", json.loads(line)) for at, line in itertools.islice(full, MAX_RECORDS))


def _generated_records(name: str, options: Mapping[str, Any]) -> Records:
    task = load_part("tasks", name)
    made = task.generate(**options)
    if not isinstance(made, Iterable):
        _fail(task.generate, "made", made, "pairs")
    for at, pair in enumerate(itertools.islice(made, 9), 1):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], dict)):
            _fail(task.generate, "generated", pair, "a split and a record: a text and a dict")
        yield f"record {at} of its generator", pair[1]


def _fail(culprit: Any, verb: str, got: Any, wanted: str) -> NoReturn:
    raise PartFailure(f"{verb} {'None' if got is None else f'a {type(got).__name__}'}, not {wanted}", culprit)


def try_task(task: Task, records: Records) -> None:
    """Call the functions of a task on records; raises PartFailure."""
    golds = {"7"}
    for place, record in itertools.chain([("a record without fields", {})], records):
        if record and task.counts is not None and not task.counts(record):
            continue
        try:
            reading = task.read(record)
        except ValueError as error:
            if not record:
                continue  # as it should be
            raise PartFailure(f"cannot read {place}: {error}", error) from error
        except Exception as error:
            raise PartFailure(f"raised {type(error).__name__}: {error} for {place}; {READS}", error) from error
        if not record:
            continue
        if not isinstance(reading, Reading):
            _fail(task.read, "read a record as", reading, "a Reading")
        for field, value in (("text", reading.text), ("gold", reading.gold), ("rationale", reading.rationale or "")):
            if not isinstance(value, str):
                _fail(task.read, f"read a record with {field}", value, "a text")
        golds.add(reading.gold)
        if task.write and task.read(task.write(reading)).text != reading.text:
            raise PartFailure("`write` made a record that `read` reads as another question", task.write)
    for gold in sorted(golds):
        for text in (f"Step 1: It is {gold}.\nThe answer is {gold}.", "No idea.", ""):
            answer = task.extract(text)
            if not isinstance(answer, str | None):
                _fail(task.extract, "extracted", answer, "a text or None")
        same = task.equal(gold, gold)
        if not isinstance(same, bool | Undecided):
            _fail(task.equal, "compared two answers and returned", same, "True, False or an Undecided")
        if same is False:
            raise PartFailure(f"holds the answer {gold!r} to be different from itself", task.equal)


def _filter_trials(draft: Draft) -> Iterator[Trial]:
    questions, corrections = draft.sections["questions"], draft.sections["corrections"]
    given = {
        "questions": [TRIAL_QUESTION],
        "task": _load_or_none("tasks", questions.task) if questions else None,
        "hint": corrections.hint if corrections else "none",
        "read_file": lambda _: iter(()),
        "models": {name: _trial_model(name, one) for name, one in (draft.sections["models"] or {}).items()},
        "generate": lambda requests: (Completion("Yes. The answer is 7.", "stop") for _ in requests),
    }
    for path, item in draft.tree.items("verdicts", "filters"):
        one = salvage(item, Part)
        part = _user_part("filters", one.use) if one else None
        # Wrong options are reported by the rules, those by position by the trial.
        if (
            one
            and callable(part)
            and (positional_parameters(part)[1:] or not option_problems(part, one.options, GIVEN))
        ):
            yield Trial(path, one.use, part, partial(try_filter, part, one.options, given))


def positional_parameters(part: Any) -> list[str]:
    """The names of the parameters that a part takes by position."""
    parameters = inspect.signature(part).parameters.values()
    return [one.name for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]


def try_filter(part: Any, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Call a filter on three candidates; raises PartFailure."""
    if len(positional := positional_parameters(part)) > 1:
        told = "a filter takes its candidates, options stand after `*`"
        raise PartFailure(f"takes {' and '.join(positional)} by position; {told}", part)
    asked = {name: given[name] for name in inspect.signature(part).parameters if name in GIVEN}
    found = part(list(TRIAL_CANDIDATES), **options, **asked)
    if not isinstance(found, Iterable) or isinstance(found, str | bytes):
        _fail(part, "returned", found, f"findings: {YIELDS} candidate")
    findings = list(itertools.islice(found, len(TRIAL_CANDIDATES) + 1))
    for finding in findings:
        if not isinstance(finding, Finding):
            _fail(part, "yielded", finding, "a Finding")
        if isinstance(finding.value, bool) or not isinstance(finding.value, int | float | None):
            _fail(part, "yielded a Finding of", finding.value, "a number or None")
        if not isinstance(finding.reason, str | None):
            _fail(part, "yielded a Finding with the reason", finding.reason, "a text or None")
    if len(findings) != len(TRIAL_CANDIDATES):
        more = "more" if len(findings) > len(TRIAL_CANDIDATES) else "fewer"
        raise PartFailure(f"yielded {more} findings than candidates; {YIELDS}", part)


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

        async def awaited() -> Any:
            return await replies

        replies = asyncio.run(awaited())
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
