"""The rows of every artifact: what flows between the stages, in the order in which it flows.

Ids are deterministic and say where a row comes from: question `gsm8k-train-00017`, sample
`gsm8k-train-00017/llama2/3`, correction `gsm8k-train-00017/llama2/3/c0`. So joins need no bookkeeping.
The Arrow schema of an artifact is derived from the fields of its class (`lema.engine.parquet`).
"""

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]
Finish = Literal["stop", "length", "refused", "failed"]
Outcome = Literal["correct", "incorrect", "unparsed", "timeout", "truncated", "failed"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Record:
    """`source`: one raw record as it came, kept as canonical JSON so that reading it again costs nothing."""

    id: str
    split: Split
    record: str


@dataclass(frozen=True, slots=True)
class Question:
    """`questions`: `gold` is the gold answer, `rationale` the gold solution as steps, one a line, or None."""

    id: str
    split: Split
    text: str
    gold: str
    rationale: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """`samples`: one path, a chain-of-thought solution of one question; `index` tells the paths of a sampler apart.

    `prompt` is the SHA-256 of the prompt, `completion` the key of the reply in the completion store
    (empty for an imported path). A failed request is a row too, with `finish` "failed" and its `error`.
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


@dataclass(frozen=True, slots=True)
class Grade:
    """`grades`: the id is that of the sample; `answer` is what the task extracted, None where there was none."""

    id: str
    question_id: str
    sampler: str
    outcome: Outcome
    answer: str | None


@dataclass(frozen=True, slots=True)
class Correction:
    """`corrections`: one reply of the corrector to one wrong sample (LEMA, section 2.1).

    `status` is "parsed", "malformed", "truncated" or "failed", with a `reason` unless parsed. `incorrect_step`
    counts from 1. `solution` is the corrected solution, steps one a line without their numbers; a first line
    "..." stands for the untouched steps before the incorrect one. `answer` is extracted from the reply.
    `error_type` is set by correctors that name the kind of error, else None.
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


@dataclass(frozen=True, slots=True)
class Drop:
    """One filter's objection to one correction."""

    filter: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`verdicts`: the id is that of the correction. Every filter judges every row, so `drops` may hold several;
    `dropped_by` and `reason` are the first of them, None when accepted."""

    id: str
    sample_id: str
    question_id: str
    accepted: bool
    dropped_by: str | None
    reason: str | None
    drops: tuple[Drop, ...]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Answer:
    """`answers`: one test question answered by one model; `arm` is "base" or the name of an arm."""

    id: str
    question_id: str
    arm: str
    text: str
    finish: Finish
    error: str | None
    outcome: Outcome
    answer: str | None
    completion: str
    prompt_tokens: int
    completion_tokens: int
