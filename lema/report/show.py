"""Rows as a person reads them: `lema show`, and the list of parts: `lema ls`."""

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from math import exp
from pathlib import Path
from typing import Any

import yaml
from typer import style

from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, BY_ARM, DATA, artifact_path
from lema.errors import LemaError, allowed
from lema.recipe import part_loader
from lema.report.examples import Step, correction_view, numbered_steps
from lema.rows import Answer, Correction, Evolved, Example, Location, Probe, Question, Record, Sample, Verdict
from lema.text.joins import SortedLookup

_KINDS: Mapping[str, part_loader.PartKind] = {"tasks": "tasks", "filters": "filters", "backends": "models"}
_PLACES = {"task": "tasks", "generator": "tasks", "filters": "filters", "backend": "backends"}  # keys of a recipe
_TYPES = {name: row_type for name, row_type in ARTIFACTS.items() if row_type is not None}
# Artifact -> field of its rows -> the artifact whose row of that id belongs to it.
_JOINS: Mapping[str, Mapping[str, str]] = {
    "samples": {"question_id": "questions", "id": "grades"},
    "grades": {"question_id": "questions", "id": "samples"},
    "locations": {"question_id": "questions", "id": "samples"},
    "corrections": {"id": "verdicts", "sample_id": "samples", "question_id": "questions"},
    "verdicts": {"id": "corrections", "sample_id": "samples", "question_id": "questions"},
    "evolved": {"seed_id": "questions"},
    "answers": {"question_id": "questions"},
    "probe": {"question_id": "questions"},
}
_LABEL_WIDTH = 13  # characters of the column of labels
_TAG_COLOURS = {"accepted": "green", "correct": "green", "dropped": "red", "incorrect": "red"}
_STEP_SIGNS = {"wrong": ("✗", "red"), "new": ("+", "green"), "": (" ", None)}

# What is shown of one row: a label with a text or steps.
Block = tuple[str, str | list[Step] | None]
Joined = Mapping[str, Any]


class ShowError(LemaError):
    """An artifact, field or part that does not exist."""

    exit_code = 2


def open_tables(artifact: str, recipe: str, arm: str | None) -> dict[str, Iterable[Any]]:
    """The rows of an artifact and of those that belong to it, as far as they are made, for `show_rows`.

    Raises ShowError when the artifact has no rows, or is not made yet.
    """
    path = artifact_path(artifact, recipe, arm or "ARM") if artifact in ARTIFACTS else Path()
    if artifact not in _TYPES:
        reason = f"{artifact} has no rows to show; it is in {path}" if artifact in ARTIFACTS else ""
        raise ShowError(reason or f"there are no rows of {artifact!r}; {allowed(artifact, _TYPES)}")
    if artifact in BY_ARM and arm is None:
        raise ShowError(f"{artifact} is made for an arm: lema show {artifact} {recipe}/ARM")
    planned = [path.parent.name for path in DATA.glob("*/plan.yaml")]
    if recipe not in planned and Path(f"recipes/{recipe}.yaml").is_file():
        raise ShowError(f"nothing is made of {recipe} yet: lema repro (a recipe that params.yaml lists), or lema make")
    if recipe not in planned:
        raise ShowError(f"nothing is made of a recipe {recipe!r} yet; {allowed(recipe, planned)}")
    if not path.is_file():
        raise ShowError(f"{path} is not made yet: lema repro")
    paths = {name: artifact_path(name, recipe, arm) for name in (artifact, *_JOINS.get(artifact, {}).values())}
    return {name: parquet.Rows(path, _TYPES[name]) for name, path in paths.items() if path.is_file()}


def show_rows(
    artifact: str, tables: Mapping[str, Iterable[Any]], *, n: int = 3, where: Sequence[str] = (), width: int = 100
) -> str:
    """The first `n` rows of an artifact for which every `field=value` of `where` holds, and how many there are.

    `tables` has the recipe's artifacts that exist, sorted by id; rows are shown with what belongs to them. A field is
    one of the row's own or of a row that belongs to it, so `accepted=false` works for corrections; `samples.model=...`
    names the artifact. Raises ShowError for an artifact that is not there and for unknown fields, with the nearest
    name.
    """
    if artifact not in tables:
        raise ShowError(f"there are no rows of {artifact!r}; {allowed(artifact, tables)}")
    own = _JOINS.get(artifact, {})
    joins = {name: (key, SortedLookup(tables[name])) for key, name in own.items() if name in tables}
    conditions = [_condition(text, (artifact, *own.values())) for text in where]
    shown: list[str] = []
    found = 0
    for row in tables[artifact]:
        if where or found < n:
            joined = {artifact: row} | dict.fromkeys(own.values())
            joined |= {name: lookup.get(getattr(row, key)) for name, (key, lookup) in joins.items()}
            if not all(holds(joined) for holds in conditions):
                continue
            if found < n:
                shown.append(_rendered(row.id, *_described(artifact, joined), width))
        found += 1
    condition = f" where {' and '.join(where)}" if where else ""
    return "\n\n".join([*shown, style(f"{len(shown)} of {found:,} rows of {artifact}{condition}", dim=True)])


def _condition(text: str, artifacts: Sequence[str]) -> Callable[[Joined], bool]:
    """A test of `field=value` or `artifact.field=value`; values as a user writes them: true, none, numbers, texts."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals:
        raise ShowError(f"--where {text!r} is not of the form field=value")
    known: dict[str, tuple[str, str]] = {}
    for table in artifacts:
        for field in fields(_TYPES[table]):
            known.setdefault(field.name, (table, field.name))
            known[f"{table}.{field.name}"] = (table, field.name)
    if name not in known:
        own = [one for one in known if "." not in one]
        raise ShowError(f"rows of {artifacts[0]} have no field {name!r}; {allowed(name, own)}")
    table, field_name = known[name]
    return lambda row: str(getattr(row[table], field_name, None)).casefold() == value.casefold()


def list_parts(kind: str, root: Path) -> str:
    """The parts that a recipe can name, with what each is for, ours and those of the project that its recipes name:
    tasks, filters, backends or prompts; all for "".

    Raises ShowError for an unknown kind.
    """
    kinds = [*_KINDS, "prompts"]
    if kind and kind not in kinds:
        raise ShowError(f"unknown kind of part {kind!r}; {allowed(kind, kinds)}")
    return "\n\n".join(_listing(name, root) for name in ([kind] if kind else kinds))


def _listing(kind: str, root: Path) -> str:
    if kind == "prompts":
        folder = root / "recipes/prompts"
        files = sorted(file for file in folder.rglob("*") if file.suffix in (".yaml", ".yml"))
        entries = {file.relative_to(folder).with_suffix("").as_posix(): _first_comment(file) for file in files}
    else:
        names = [*part_loader.part_names(_KINDS[kind]), *_own_parts(kind, root)]
        entries = {name: part_loader.part_summary(_KINDS[kind], name) for name in names}
    column = max(map(len, entries), default=0)
    lines = [f"  {name:<{column}}  {style(about, dim=True)}".rstrip() for name, about in entries.items()]
    return "\n".join([style(kind, bold=True), *(lines or ["  none"])])


def _own_parts(kind: str, root: Path) -> Iterator[str]:
    """The parts of the project that its recipes name."""
    found = set[str]()
    for file in (root / "recipes").glob("*.yaml"):
        text = file.read_bytes()
        if re.search(rb"\w:[a-zA-Z_]", text):
            with suppress(yaml.YAMLError):
                found |= {
                    name for key, name in _texts(yaml.safe_load(text)) if ":" in name and _PLACES.get(key) == kind
                }
    for name in sorted(found):
        with suppress(part_loader.PartError):  # what is no name of a part, `lema check` says
            if part_loader.source_file(part_loader.module_name(_KINDS[kind], name)):
                yield name


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts of a recipe, names of options among them, each with the key that it stands under."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield key, str(name)
            yield from _texts(child, str(name))
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child, key)
    elif isinstance(value, str):
        yield key, value


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") and "yaml-language-server" not in first else ""


def _rendered(name: str, tags: Sequence[str | None], blocks: Iterable[Block], width: int) -> str:
    coloured = (style(tag, fg=_TAG_COLOURS.get(tag)) for tag in tags if tag)
    lines = [" · ".join([style(name, bold=True), *coloured])]
    for label, content in blocks:
        steps = [(None, content, "")] if isinstance(content, str) else content or []
        for place, (number, text, mark) in enumerate(steps):
            sign, colour = _STEP_SIGNS[mark]
            lead = "" if number is None else f"{sign} {number:>2}  "
            first = f"{'' if place else label:<{_LABEL_WIDTH}}"
            room = max(20, width - _LABEL_WIDTH - len(lead))
            for paragraph in text.splitlines() or [""]:
                for line in textwrap.wrap(paragraph, room) or [""]:
                    lines.append(f"{first}{style(lead + line, fg=colour) if colour else lead + line}".rstrip())
                    first, lead = " " * _LABEL_WIDTH, " " * len(lead)
    return "\n".join(lines)


def _described(artifact: str, joined: Joined) -> tuple[list[str | None], list[Block]]:
    """The tags of a row, and what is shown of it; what is empty is left out."""
    row, question, sample, grade = (joined.get(name) for name in (artifact, "questions", "samples", "grades"))
    asked: list[Block] = [("Question", question.text), ("Gold", question.gold)] if question else []
    match row:
        case Record():
            record = json.loads(row.record)
            pairs = (record if isinstance(record, dict) else {"record": record}).items()
            return [row.split], [(str(key), one if isinstance(one, str) else json.dumps(one)) for key, one in pairs]
        case Question():
            return [row.split], [*asked, ("Rationale", numbered_steps(row.rationale))]
        case Location():
            path = numbered_steps(sample and sample.text, row.incorrect_step)
            return [f"step {row.incorrect_step or '?'}"], [
                *asked,
                ("Path", path),
                (row.status.capitalize(), row.reason),
            ]
        case Evolved():
            answers = ", ".join(answer or "none" for answer in row.answers)
            new: list[Block] = [("Question", row.text), ("Answers", answers), ("Dropped", row.reason)]
            return [_verdict_tag(row)], [("Seed", question and question.text), *new]
        case Correction() | Verdict():
            correction, verdict = joined["corrections"], joined["verdicts"]
            tags = [correction and correction.error_type, _verdict_tag(verdict)]
            blocks = _correction_blocks(correction, question, sample) if correction else []
            return tags, [*asked, *blocks, *_finding_blocks(verdict, every=artifact == "verdicts")]
        case Example():
            turns: list[Block] = [(message.role.capitalize(), message.content) for message in row.prompt]
            return [row.kind, row.source_id], [*turns, ("Completion", row.completion)]
        case Answer():
            return [row.outcome], [*asked, ("Error", row.error) if row.error else ("Answer", row.text)]
        case Probe():
            losses = (("Right", row.right, row.right_tokens), ("Wrong", row.wrong, row.wrong_tokens))
            return [], asked + [
                (f"{side} path", f"perplexity {exp(loss):.2f} over {n} tokens") for side, loss, n in losses
            ]
    tags = [grade.outcome, f"answer {grade.answer}" if grade.answer is not None else "no answer"] if grade else []
    if sample:
        asked += [("Error", sample.error), ("Path", None if sample.error else numbered_steps(sample.text))]
        if sample.error_type:
            asked.append(("Put in", f"{sample.error_type}, step {sample.incorrect_step or '?'}"))
    return tags, asked


def _correction_blocks(row: Correction, question: Question | None, sample: Sample | None) -> list[Block]:
    if row.status != "parsed" or question is None or sample is None:
        path = numbered_steps(sample.text if sample else None)
        return [("Wrong path", path), (row.status.capitalize(), row.reason), ("Reply", row.reply)]
    seen = correction_view(question, sample, row, None)
    kept = seen["kept"] and f"(steps 1 to {seen['kept']} as before)".replace("steps 1 to 1 ", "step 1 ")
    solution = [("Correction", kept), ("", seen["solution"])] if kept else [("Correction", seen["solution"])]
    return [("Wrong path", seen["path"]), ("Explanation", seen["explanation"]), *solution]


def _finding_blocks(row: Verdict | None, every: bool) -> list[Block]:
    """What filters found, or only those that drop the correction."""
    if row is None:
        return []
    if not every:
        return [("Dropped by", f"{drop.filter}: {drop.reason}") for drop in row.drops]
    column = max((len(finding.filter) for finding in row.findings), default=0)
    lines = [
        f"{' ' if finding.reason is None else '✗'} {finding.filter:<{column}}  "
        f"{'–' if finding.value is None else f'{finding.value:g}':>6}  {finding.reason or ''}"
        for finding in row.findings
    ]
    return [("Findings", "\n".join(lines))]


def _verdict_tag(row: Verdict | Evolved | None) -> str:
    return "" if row is None else "accepted" if row.accepted else "dropped"
