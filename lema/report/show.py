"""Rows as a person reads them: `lema show`, and the list of parts: `lema ls`."""

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from math import exp
from pathlib import Path
from typing import Any

from typer import style

from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, BY_ARM, DATA, artifact_path
from lema.errors import LemaError, allowed
from lema.recipe import part_loader
from lema.report.examples import correction_view
from lema.rows import Answer, Evolved, Example, Location, Probe, Question, Record, Sample, Verdict
from lema.text.steps import split_steps

_KINDS: Mapping[str, part_loader.Kind] = {"tasks": "tasks", "filters": "filters", "backends": "models"}
# Artifact -> field of its rows -> the artifact whose row of that id belongs to it.
_JOINS: Mapping[str, Mapping[str, str]] = {
    "samples": {"question_id": "questions", "id": "grades"},
    "grades": {"question_id": "questions", "id": "samples"},
    "locations": {"question_id": "questions", "id": "samples"},
    "corrections": {"id": "verdicts", "sample_id": "samples", "question_id": "questions"},
    "verdicts": {"id": "corrections", "sample_id": "samples", "question_id": "questions"},
    "evolved": {"seed_id": "questions"},
    "mix": {"question_id": "questions"},
    "answers": {"question_id": "questions"},
    "probe": {"question_id": "questions"},
}
_LABEL = 13

# The parts of one row: (label, text) and, for steps, (label, [(number, text, mark)]).
Part = tuple[str, "str | list[tuple[int, str, str]]"]
Joined = Mapping[str, Any]


class ShowError(LemaError):
    """An artifact, field or part that does not exist."""

    exit_code = 2


def tables(artifact: str, recipe: str, arm: str | None) -> dict[str, Sequence[Any]]:
    """An artifact of rows, and what has been made of those that belong to it, for `show`.

    Raises ShowError when it has no rows, or is not made yet.
    """
    rows = {name: row_type for name, row_type in ARTIFACTS.items() if row_type is not None}
    if artifact in ARTIFACTS and artifact not in rows:
        raise ShowError(f"{artifact} has no rows to show; it is in {artifact_path(artifact, recipe, arm or 'ARM')}")
    if artifact not in rows:
        raise ShowError(f"there are no rows of {artifact!r}; {allowed(artifact, rows)}")
    if artifact in BY_ARM and arm is None:
        raise ShowError(f"{artifact} is made for an arm: lema show {artifact} {recipe}/ARM")
    begun = [path.parent.name for path in DATA.glob("*/plan.yaml")]
    if recipe not in begun and Path(f"recipes/{recipe}.yaml").is_file():
        raise ShowError(f"nothing is made of {recipe} yet: lema repro (a recipe that params.yaml lists), or lema make")
    if recipe not in begun:
        raise ShowError(f"nothing is made of a recipe {recipe!r} yet; {allowed(recipe, begun)}")
    if not artifact_path(artifact, recipe, arm).is_file():
        raise ShowError(f"{artifact_path(artifact, recipe, arm)} is not made yet: lema repro")
    places = {name: artifact_path(name, recipe, arm) for name in (artifact, *_JOINS.get(artifact, {}).values())}
    return {name: parquet.read_rows(path, rows[name]) for name, path in places.items() if path.is_file()}


def show(
    artifact: str, tables: Mapping[str, Sequence[Any]], *, n: int = 3, where: Sequence[str] = (), width: int = 100
) -> str:
    """The first `n` rows of an artifact of which every `field=value` of `where` is true, and how many there are.

    `tables` holds the recipe's artifacts that exist; rows are shown with what belongs to them. A field is one of the
    row's own or of a row that belongs to it, so `accepted=false` works for corrections; `samples.model=...` says
    whose. Raises ShowError for an artifact that is not there and for unknown fields, with the nearest name.
    """
    if artifact not in tables:
        raise ShowError(f"there are no rows of {artifact!r}; {allowed(artifact, tables)}")
    joined = [name for name in _JOINS.get(artifact, {}).values() if name in tables]
    indexes = {name: {row.id: row for row in tables[name]} for name in joined}
    rows = [_joined(artifact, row, indexes) for row in tables[artifact]]
    wanted = [_condition(text, artifact, rows) for text in where]
    found = [row for row in rows if all(holds(row) for holds in wanted)]
    shown = [_render(*_DRAW[artifact](row[artifact], row), width=width) for row in found[:n]]
    condition = f" where {' and '.join(where)}" if where else ""
    return "\n\n".join([*shown, style(f"{len(shown)} of {len(found):,} rows of {artifact}{condition}", dim=True)])


def parts(kind: str, root: Path) -> str:
    """The parts that a recipe can name, with what each is for: tasks, filters, backends or prompts; all for ""."""
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
        entries = {name: part_loader.part_summary(_KINDS[kind], name) for name in part_loader.part_names(_KINDS[kind])}
    column = max([len(name) for name in entries], default=0)
    lines = [f"  {name:<{column}}  {style(about, dim=True)}".rstrip() for name, about in entries.items()]
    return "\n".join([style(kind, bold=True), *(lines or ["  none"])])


def _first_comment(file: Path) -> str:
    first = file.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") and "yaml-language-server" not in first else ""


def _joined(artifact: str, row: Any, indexes: Mapping[str, Mapping[str, Any]]) -> Joined:
    """A row and what belongs to it, by artifact; None where that is missing."""
    joins = _JOINS.get(artifact, {})
    others = {name: indexes.get(name, {}).get(getattr(row, field)) for field, name in joins.items()}
    return {artifact: row, **others}


def _condition(text: str, artifact: str, rows: Sequence[Joined]) -> Callable[[Joined], bool]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ShowError(f"--where {text!r} is not of the form field=value")
    known: dict[str, tuple[str, str]] = {}
    for table in [artifact, *_JOINS.get(artifact, {}).values()]:
        one = next((row[table] for row in rows if row.get(table) is not None), None)
        for label in [field.name for field in fields(one)] if one is not None else []:
            known.setdefault(label, (table, label))
            known[f"{table}.{label}"] = (table, label)
    if name.strip() not in known:
        if not rows:
            return lambda _: False
        bare = [one for one in known if "." not in one]
        raise ShowError(f"rows of {artifact} have no field {name.strip()!r}; {allowed(name.strip(), bare)}")
    owner, own = known[name.strip()]
    return lambda row: _said(getattr(row[owner], own, None)) == value.strip().casefold()


def _said(value: Any) -> str:
    """A value as a user writes it: true, false, none, numbers and texts."""
    return str(value).casefold()


def _render(title: str, tags: Sequence[str], content: Sequence[Part], *, width: int) -> str:
    lines = [" · ".join([style(title, bold=True), *(_tag(tag) for tag in tags if tag)])]
    for label, text in content:
        if isinstance(text, str):
            lines += _labelled(label, "", text, width)
            continue
        for at, (number, step, mark) in enumerate(text):
            sign = {"wrong": "✗", "new": "+"}.get(mark, " ")
            colour = {"wrong": "red", "new": "green"}.get(mark)
            block = _labelled(label if at == 0 else "", f"{sign} {number:>2}  ", step, width)
            lines += [line[:_LABEL] + style(line[_LABEL:], fg=colour) for line in block] if colour else block
    return "\n".join(lines)


def _tag(tag: str) -> str:
    colours = {"accepted": "green", "correct": "green", "dropped": "red", "incorrect": "red"}
    return style(tag, fg=colours[tag]) if tag in colours else tag


def _labelled(label: str, lead: str, text: str, width: int) -> list[str]:
    """Paragraphs beside a label, later lines indented alike."""
    room = max(20, width - _LABEL - len(lead))
    lines = [line for paragraph in text.splitlines() or [""] for line in textwrap.wrap(paragraph, room) or [""]]
    first = f"{label:<{_LABEL}}{lead}"
    return [f"{first if place == 0 else ' ' * len(first)}{line}".rstrip() for place, line in enumerate(lines)]


def _steps(text: str | None) -> list[tuple[int, str, str]]:
    return [(place, step, "") for place, step in enumerate(split_steps(text or ""), 1)]


def _question(question: Question | None) -> Iterator[Part]:
    if question is not None:
        yield "Question", question.text
        yield "Gold", question.gold


def _draw_record(row: Record, _: Joined) -> tuple[str, list[str], list[Part]]:
    record = json.loads(row.record)
    pairs = record.items() if isinstance(record, dict) else [("record", record)]
    return row.id, [row.split], [(str(key), text if isinstance(text, str) else json.dumps(text)) for key, text in pairs]


def _draw_question(row: Question, _: Joined) -> tuple[str, list[str], list[Part]]:
    rationale: list[Part] = [("Rationale", _steps(row.rationale))] if row.rationale else []
    return row.id, [row.split], [*_question(row), *rationale]


def _draw_sample(_: Any, joined: Joined) -> tuple[str, list[str], list[Part]]:
    sample: Sample | None = joined["samples"]
    grade = joined["grades"]
    name = sample.id if sample else grade.id
    tags = [grade.outcome, f"answer {grade.answer}" if grade.answer is not None else "no answer"] if grade else []
    content = list(_question(joined["questions"]))
    if sample is not None:
        content += [("Error", sample.error)] if sample.error else [("Path", _steps(sample.text))]
        if sample.error_type is not None:
            content.append(("Put in", f"{sample.error_type}, step {sample.incorrect_step or '?'}"))
    return name, tags, content


def _draw_location(row: Location, joined: Joined) -> tuple[str, list[str], list[Part]]:
    sample: Sample | None = joined["samples"]
    steps = _steps(sample.text if sample else None)
    marked = [(place, step, "wrong" if place == row.incorrect_step else "") for place, step, _ in steps]
    reason: list[Part] = [(row.status.capitalize(), row.reason)] if row.reason else []
    return row.id, [f"step {row.incorrect_step or '?'}"], [*_question(joined["questions"]), ("Path", marked), *reason]


def _draw_evolved(row: Evolved, joined: Joined) -> tuple[str, list[str], list[Part]]:
    seed: Question | None = joined["questions"]
    content: list[Part] = [("Seed", seed.text)] if seed else []
    answers = ", ".join(answer or "none" for answer in row.answers)
    content += [("Question", row.text), ("Answers", answers)]
    content += [("Dropped", row.reason)] if row.reason else []
    return row.id, ["accepted" if row.accepted else "dropped"], content


def _draw_correction(_: Any, joined: Joined) -> tuple[str, list[str], list[Part]]:
    row, verdict, question, sample = (joined[name] for name in ("corrections", "verdicts", "questions", "samples"))
    if row is None:
        return verdict.id, ["accepted" if verdict.accepted else "dropped"], list(_question(question))
    verdict_tag = "" if verdict is None else "accepted" if verdict.accepted else "dropped"
    tags, content = [row.error_type or "", verdict_tag], list(_question(question))
    if row.status != "parsed" or question is None or sample is None:
        path: list[Part] = [("Wrong path", _steps(sample.text))] if sample else []
        content += [*path, (row.status.capitalize(), row.reason or ""), ("Reply", row.reply)]
    else:
        content += _correction(correction_view(question, sample, row, verdict))
    content += [("Dropped by", f"{drop.filter}: {drop.reason}") for drop in (verdict.drops if verdict else ())]
    return row.id, tags, content


def _draw_verdict(row: Verdict, joined: Joined) -> tuple[str, list[str], list[Part]]:
    """The correction, then what every filter found."""
    name, tags, content = _draw_correction(row, joined)
    content = [part for part in content if part[0] != "Dropped by"]
    column = max((len(finding.filter) for finding in row.findings), default=0)
    for at, finding in enumerate(row.findings):
        mark = " " if finding.reason is None else "✗"
        value = "–" if finding.value is None else f"{finding.value:g}"
        line = f"{mark} {finding.filter:<{column}}  {value:>6}  {finding.reason or ''}"
        content.append(("" if at else "Findings", line))
    return name, tags, content


def _correction(seen: Mapping[str, Any]) -> Iterator[Part]:
    yield "Wrong path", seen["path"]
    yield "Explanation", seen["explanation"]
    if seen["kept"]:
        yield "Correction", f"(steps 1 to {seen['kept']} as before)" if seen["kept"] > 1 else "(step 1 as before)"
    yield "" if seen["kept"] else "Correction", seen["solution"]


def _draw_example(row: Example, _: Joined) -> tuple[str, list[str], list[Part]]:
    turns: list[Part] = [(message.role.capitalize(), message.content) for message in row.prompt]
    return row.id, [row.kind, row.source_id], [*turns, ("Completion", row.completion)]


def _draw_answer(row: Answer, joined: Joined) -> tuple[str, list[str], list[Part]]:
    text: Part = ("Error", row.error) if row.error else ("Answer", row.text)
    return row.id, [row.outcome], [*_question(joined["questions"]), text]


def _draw_probe(row: Probe, joined: Joined) -> tuple[str, list[str], list[Part]]:
    figures: list[Part] = [
        (f"{kind} path", f"perplexity {exp(loss):.2f} over {tokens} tokens")
        for kind, loss, tokens in (("Right", row.right, row.right_tokens), ("Wrong", row.wrong, row.wrong_tokens))
    ]
    return row.id, [], [*_question(joined["questions"]), *figures]


_DRAW: Mapping[str, Callable[[Any, Joined], tuple[str, list[str], list[Part]]]] = {
    "source": _draw_record,
    "questions": _draw_question,
    "samples": _draw_sample,
    "grades": _draw_sample,
    "locations": _draw_location,
    "corrections": _draw_correction,
    "verdicts": _draw_verdict,
    "evolved": _draw_evolved,
    "mix": _draw_example,
    "answers": _draw_answer,
    "probe": _draw_probe,
}
