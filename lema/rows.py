"""The rows of every artifact: what flows between the stages, in the order in which it flows.

Ids are deterministic and say where a row comes from: question `gsm8k-train-00017`, sample
`gsm8k-train-00017/llama2/3`, correction `gsm8k-train-00017/llama2/3/c0`. So joins need no bookkeeping.
The Arrow schema of an artifact is derived from the fields of its class (`lema.compute.parquet`).
"""

from dataclasses import dataclass, field
from typing import Literal, TypeVar, cast, dataclass_transform

# "train", "dev", "test", or the name of a transfer set; nothing but "train" is ever learnt from.
Split = str
Finish = Literal["stop", "length", "refused", "failed"]
Outcome = Literal["correct", "incorrect", "unparsed", "timeout", "truncated", "failed"]

Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def row_class(kind: Class) -> Class:
    """A dataclass with slots whose objects nobody changes: mypy refuses it. Python does not, since a class that does
    takes seven times as long to make an object, and there are millions."""
    return cast(Class, dataclass(slots=True, unsafe_hash=True)(kind))


@row_class
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@row_class
class Record:
    """`source`: one raw record as it came, kept as canonical JSON so that reading it again costs nothing."""

    id: str
    split: Split
    record: str


@row_class
class Stratum:
    """A property by which questions are told apart, such as `level` and its value, "Level 4"."""

    name: str
    value: str


@row_class
class Question:
    """`questions`: `gold` is the gold answer, `rationale` the gold solution as steps, one a line, or None.

    The split "dev" is held out of the source's training records: for choosing settings, so that the
    test questions are looked at once. The name of a transfer set marks test questions of another source.
    `strata` are what scores can be told apart by; no two have the same name.
    """

    id: str
    split: Split
    text: str
    gold: str
    rationale: str | None
    strata: tuple[Stratum, ...] = ()


@row_class
class Sample:
    """`samples`: one path, a chain-of-thought solution of one question; `index` tells the paths of a sampler apart.

    `prompt` is the SHA-256 of the prompt, `completion` the key of the reply in the completion store
    (empty for an imported path). A failed request is a row too, with `finish` "failed" and its `error`.
    A path that was made of another has the `origin` that it was made of, a sample or, for a gold rationale, a
    question; one that was spoilt on purpose has the `error_type` that was put in and its `incorrect_step` (from 1).
    """

    id: str
    question_id: str
    sampler: str
    index: int
    text: str
    finish: Finish
    error: str | None
    model: str
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int
    origin: str | None = None
    error_type: str | None = None
    incorrect_step: int | None = None


@row_class
class Grade:
    """`grades`: the id is that of the sample; `answer` is what the task extracted, None where there was none."""

    id: str
    question_id: str
    sampler: str
    outcome: Outcome
    answer: str | None


@row_class
class Location:
    """`locations`: where a wrong path goes wrong; the id is that of the sample. `incorrect_step` counts from 1 and is
    None unless `status` is "parsed". For an injected mistake that was not asked for, `model` is "injected" and
    `reply`, `prompt` and `completion` are empty."""

    id: str
    question_id: str
    sampler: str
    status: Literal["parsed", "malformed", "truncated", "failed"]
    reason: str | None
    reply: str
    incorrect_step: int | None
    model: str
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int


@row_class
class Correction:
    """`corrections`: one reply of the corrector to one wrong sample (LEMA, section 2.1).

    `status` is "parsed", "malformed", "truncated" or "failed", with a `reason` unless parsed. `incorrect_step`
    counts from 1; None in a form that names no step. `solution` is the corrected solution, steps one a line without
    their numbers; a first line "..." stands for the untouched steps before the incorrect one. `answer` is extracted
    from the reply. `error_type` is set by correctors that name the kind of error, else None.
    """

    id: str
    sample_id: str
    question_id: str
    index: int
    status: Literal["parsed", "malformed", "truncated", "failed"]
    reason: str | None
    reply: str
    incorrect_step: int | None
    error_type: str | None
    explanation: str | None
    solution: str | None
    answer: str | None
    model: str
    prompt: str
    completion: str
    prompt_tokens: int
    completion_tokens: int


@row_class
class Finding:
    """What one filter finds of one correction: the number that it measures, None where there is nothing to measure,
    and why it would drop the correction, None to keep it. `filter` is its name, which `verdicts` sets."""

    value: float | None
    reason: str | None = None
    filter: str = ""


@row_class
class Verdict:
    """`verdicts`: the id is that of the correction. `findings` has one entry a filter, in the recipe's order, whatever
    the others found; `dropped_by` and `reason` are of the first with a reason, None when accepted."""

    id: str
    sample_id: str
    question_id: str
    accepted: bool
    dropped_by: str | None
    reason: str | None
    findings: tuple[Finding, ...]

    @property
    def drops(self) -> tuple[Finding, ...]:
        """The findings with a reason to drop."""
        return tuple(finding for finding in self.findings if finding.reason is not None)


@row_class
class Evolved:
    """`evolved`: one new question (LEMA, section 2.2), written from the question `seed_id`; `index` tells apart those
    of one seed. `answers` are what the solver's replies came to, in the order of `completions`, `votes` how many
    agree on the commonest. `record` is the accepted question as JSON that the task reads, with that answer as its
    gold one and the first path that leads to it as its rationale; None with a `reason`. `model`, `prompt` and
    `completion` are the writer's, tokens are those of both.
    """

    id: str
    seed_id: str
    index: int
    text: str
    answers: tuple[str | None, ...]
    votes: int
    accepted: bool
    reason: str | None
    record: str | None
    model: str
    prompt: str
    completion: str
    solver: str
    solver_prompt: str
    completions: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


@row_class
class Example:
    """`mix`: one training example of one arm; the loss is on `completion` only (LEMA, figure 6).

    `source_id` is the question (gold rationale), sample (right path) or correction that it was made of. `masked` are
    spans (start, end) of characters of `completion` that have no loss: wrong steps that are read, not learnt.
    """

    id: str
    arm: str
    kind: Literal["cot", "correction"]
    question_id: str
    source_id: str
    prompt: tuple[Message, ...]
    completion: str
    masked: tuple[tuple[int, int], ...] = ()


@row_class
class Answer:
    """`answers`: one question answered by one model; `arm` is "base" or the name of an arm.

    `seed` is that of the arm's training, None for the base. A "single" answer is the one of pass@1, greedy unless the
    recipe says otherwise. With votes there are, too, `index` 0, 1, ... of kind "vote", and their "majority": its answer
    is the commonest of the votes, its text that of the first vote for it, its tokens those of all votes.
    """

    id: str
    question_id: str
    arm: str
    seed: int | None
    kind: Literal["single", "vote", "majority"]
    index: int
    text: str
    finish: Finish
    error: str | None
    outcome: Outcome
    answer: str | None
    completion: str
    prompt_tokens: int
    completion_tokens: int


@row_class
class Probe:
    """`probe`: how likely one model holds a right and a wrong path of one question to be.

    `right` and `wrong` are mean losses of a token in nats, whose exponentials are perplexities; `seed` is that of the
    arm's training, None for the base.
    """

    id: str
    question_id: str
    arm: str
    seed: int | None
    right: float
    wrong: float
    right_tokens: int
    wrong_tokens: int
