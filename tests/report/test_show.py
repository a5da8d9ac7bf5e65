import json
import re
from pathlib import Path
from typing import Any

import pytest

from lema.errors import LemaError
from lema.report.show import list_parts, open_tables, show_rows
from lema.rows import Evolved, Location, Record
from tests.stages.world import world

WORLD = world(train=30, test=10)
SEED = WORLD["questions"][0]
NEW = Evolved(
    f"{SEED.id}/e0", SEED.id, 0, "How many?", ("1", "2", None), 1, False, "no majority", None, "m", "", "",
    solver="m", solver_prompt="", completions=(), prompt_tokens=0, completion_tokens=0,
)  # fmt: skip
TABLES: dict[str, Any] = {
    **{name: WORLD[name] for name in ("questions", "samples", "grades", "corrections", "verdicts", "answers")},
    "mix": WORLD["mix"]["lema"],
    "locations": [
        Location(row.id, row.question_id, row.sampler, "parsed", None, "", 1, "m", "", "", 0, 0)
        for row in WORLD["samples"][:3]
    ],
    "evolved": [NEW],
    "source": [Record("toy-1", "train", json.dumps({"question": "How many?", "answer": 5}))],
}


def plain(*arguments: Any, **options: Any) -> str:
    return re.sub(r"\x1b\[\d+m", "", show_rows(*arguments, **options))


@pytest.mark.parametrize("artifact", TABLES)
def test_every_artifact_of_rows_can_be_read(artifact: str) -> None:
    text = plain(artifact, TABLES, n=2)
    first = TABLES[artifact][0]
    assert text.startswith(first.id)
    assert text.endswith(f"{min(2, len(TABLES[artifact]))} of {len(TABLES[artifact])} rows of {artifact}")
    assert "None" not in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_correction_is_read_beside_its_question_path_and_verdict() -> None:
    text = plain("corrections", TABLES, n=100, where=["accepted=true", "incorrect_step=2", "status=parsed"])
    verdicts = {row.id: row for row in WORLD["verdicts"]}
    row = next(row for row in WORLD["corrections"] if verdicts[row.id].accepted and row.incorrect_step == 2)
    block = next(block for block in text.split("\n\n") if block.startswith(row.id))
    question = next(one for one in WORLD["questions"] if one.id == row.question_id)
    assert block.splitlines()[0] == f"{row.id} · {row.error_type} · accepted"
    assert " ".join(question.text.split()[:5]) in block
    assert len(re.findall(r"✗ +2  ", block)) == 1
    assert "(step 1 as before)" in block
    assert re.search(r"\+ +2  ", block)


def test_what_was_dropped_says_by_which_filters() -> None:
    dropped = [row for row in WORLD["verdicts"] if not row.accepted]
    text = plain("corrections", TABLES, n=100, where=["accepted=false"])
    assert text.count("Dropped by") == sum(len(row.drops) for row in dropped)
    assert text.endswith(f"{len(dropped)} of {len(dropped)} rows of corrections where accepted=false")
    assert "Malformed    `Explanation:` is missing" in text


def test_a_verdict_shows_what_every_filter_found() -> None:
    row = next(row for row in WORLD["verdicts"] if row.drops)
    block = plain("verdicts", TABLES, n=1, where=[f"id={row.id}"], width=1000).split("\n\n")[0]
    lines = [line[13:] for line in block.splitlines()][-len(row.findings) :]
    for line, finding in zip(lines, row.findings, strict=True):
        assert re.match(rf"{'✗' if finding.reason else ' '} {finding.filter} +\S+", line)
        assert line.endswith(finding.reason or "")
    assert "Dropped by" not in block


@pytest.mark.parametrize(
    ("artifact", "where", "holds"),
    [
        ("samples", ["sampler=other", "index=1"], lambda row: row.sampler == "other" and row.index == 1),
        ("samples", ["outcome=unparsed"], lambda row: "The answer" not in row.text),
        ("samples", ["error=none"], lambda row: True),
        ("grades", ["samples.index=0"], lambda row: row.id.endswith("/0")),
        ("answers", ["outcome=Correct", "arm=base"], lambda row: row.outcome == "correct" and row.arm == "base"),
        ("questions", ["split=validation"], lambda row: False),
    ],
)
def test_where_keeps_the_rows_that_it_says(artifact: str, where: list[str], holds: Any) -> None:
    expected = [row.id for row in TABLES[artifact] if holds(row)]
    shown = plain(artifact, TABLES, n=1000, where=where).split("\n\n")[:-1]
    assert [block.split(" ·")[0].splitlines()[0] for block in shown] == expected


@pytest.mark.parametrize(
    ("artifact", "where", "message"),
    [
        ("corrections", ["acepted=false"], "no field 'acepted'; did you mean 'accepted'?"),
        ("corrections", ["accepted"], "'accepted' is not of the form field=value"),
        ("correction", [], "there are no rows of 'correction'; did you mean 'corrections'?"),
    ],
)
def test_what_is_not_there_is_said_with_the_nearest_name(artifact: str, where: list[str], message: str) -> None:
    with pytest.raises(LemaError, match=re.escape(message)) as caught:
        show_rows(artifact, TABLES, where=where)
    assert caught.value.exit_code == 2


def test_rows_are_shown_without_what_is_not_made_yet() -> None:
    text = plain("corrections", {"corrections": WORLD["corrections"]}, n=1)
    assert WORLD["corrections"][0].reply.splitlines()[0] in text
    assert plain("samples", {"samples": []}, where=["sampler=x"]) == "0 of 0 rows of samples where sampler=x"


def test_parts_are_listed_with_what_they_are_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes/prompts/solve").mkdir(parents=True)
    (tmp_path / "recipes/prompts/solve/short.yaml").write_text("# Asks for short steps.\nuser: '{{ question }}'\n")
    part = "recipes.lema_shown:part"
    (tmp_path / "recipes/lema_shown.py").write_text("def part(candidates):\n    '''Ours.'''\n")
    recipe = f"verdicts: {{filters: [has_fields, '{part}': {{limit: 1}}, 'nowhere.at_all:part']}}\n"
    (tmp_path / "recipes/one.yaml").write_text(recipe)
    (tmp_path / "recipes/two.yaml").write_text(f"models: {{m: {{backend: '{part}'}}}}\nquestions: {{task: '{part}'}}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = re.sub(r"\x1b\[\d+m", "", list_parts("", tmp_path))
    assert len(re.findall(rf"^  {part} +Ours\.$", text, re.MULTILINE)) == 3
    assert "nowhere" not in text
    assert re.search(r"^  word_problems +\S", text, re.MULTILINE)
    assert re.search(r"^  answer_matches +Measures 1 where", text, re.MULTILINE)
    assert "  solve/short  Asks for short steps." in text
    assert "filters" not in list_parts("tasks", tmp_path)
    with pytest.raises(LemaError, match="did you mean 'filters'"):
        list_parts("filter", tmp_path)


def test_a_location_marks_the_step_and_a_new_question_has_its_seed_and_answers() -> None:
    row = TABLES["locations"][0]
    text = plain("locations", TABLES, n=1, where=[f"id={row.id}"])
    assert text.startswith(f"{row.id} · step 1")
    assert len(re.findall(r"✗ +1  ", text)) == 1
    text = plain("evolved", TABLES)
    assert text.startswith(f"{SEED.id}/e0 · dropped")
    for said in (" ".join(SEED.text.split()[:4]), "1, 2, none", "no majority"):
        assert said in text


@pytest.mark.parametrize(
    ("artifact", "recipe", "arm", "message"),
    [
        ("samples", "dmeo", None, "nothing is made of a recipe 'dmeo' yet; did you mean 'demo'?"),
        ("samples", "trial", None, "nothing is made of trial yet: lema repro"),
        ("samples", "demo", None, "data/demo/samples.parquet is not made yet: lema repro"),
        ("mix", "demo", None, "mix is made for an arm: lema show mix demo/ARM"),
        ("mix", "demo", "cot", "data/demo/mix/cot.parquet is not made yet"),
        ("scores", "demo", None, "scores has no rows to show; it is in data/demo/scores.json"),
        ("sample", "demo", None, "there are no rows of 'sample'; did you mean 'samples'?"),
    ],
)
def test_what_is_not_made_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: str, recipe: str, arm: str | None, message: str
) -> None:
    for file in (tmp_path / "data/demo/plan.yaml", tmp_path / "recipes/trial.yaml"):
        file.parent.mkdir(parents=True)
        file.touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LemaError, match=re.escape(message)):
        open_tables(artifact, recipe, arm)
