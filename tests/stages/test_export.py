"""The files of an export, as the trainers and the hub that read them expect them."""

import json
import shutil
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lema.pipeline.plan import make_plan
from lema.recipe.basic_types import Prompt
from lema.recipe.load import Loaded, load_recipe
from lema.recipe.training_schema import ExportSpec
from lema.rows import Finding
from lema.stages.export import export
from lema.stages.mix import mix
from lema.text.preference_pairs import PairKind, preference_pairs
from lema.text.render import split_last_step
from tests.stages.rows import BASE, correction, graded, located, question, sample
from tests.stages.world import world

ROOT = Path(__file__).parents[2]
LINES = Prompt(
    user="{{ question }}",
    assistant="{% for step in steps %}\n{{ step }}\n{% endfor %}\nThe answer is {{ answer }}.",
)
SPACES = Prompt(user="Q: {{ question }}", assistant="{{ steps | join(' ') }} So {{ answer }}.")
SPEC = ExportSpec.model_validate(
    {"title": "Sums | with mistakes", "license": "mit", "sources": ({"name": "toy", "license": "cc0-1.0"},)}
)


WORLD = world()


@cache
def demo() -> tuple[Loaded, dict[str, Any]]:
    loaded = load_recipe(ROOT / "recipes/demo.yaml", ROOT)
    return loaded, make_plan(loaded, ROOT)


def never(*_: object) -> list[int]:
    raise AssertionError


def given(**changes: Any) -> dict[str, Any]:
    """What `export` reads: the toy world with the demo's plan and its own mixes."""
    loaded, plan = demo()
    rows = {**WORLD, **changes}
    read = {name: rows[name] for name in ("questions", "samples", "grades", "corrections", "verdicts")}
    spec = loaded.recipe.mix
    mixes = {arm: list(mix(*read.values(), BASE, spec=spec, arm=arm, count_tokens=never)) for arm in spec.arms}
    fixed = {"plan": plan, "locations": rows["locations"], "mix": mixes, "spec": SPEC, "cot": spec.cot}
    return {**read, **fixed, **changes}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(**given(), folder=folder)
    return folder


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def header(folder: Path) -> dict[str, Any]:
    head = (folder / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    return yaml.safe_load(head)  # type: ignore[no-any-return]


def test_every_arm_is_there_in_training_order(folder: Path) -> None:
    mixes = given()["mix"]
    assert mixes.keys() == {"cot", "lema"}
    for arm, examples in mixes.items():
        chats, halves = rows(folder / f"chat/{arm}.jsonl"), rows(folder / f"prompt_completion/{arm}.jsonl")
        assert [row["id"] for row in chats] == [row["id"] for row in halves] == [row.id for row in examples]
        for chat, half, example in zip(chats, halves, examples, strict=True):
            assert chat["messages"] == [*half["prompt"], *half["completion"]]
            assert chat["messages"][-1] == {"role": "assistant", "content": example.completion}
            assert chat["source_id"] == half["source_id"] == example.source_id


def test_pairs_prefer_the_corrected_solution(folder: Path) -> None:
    made = rows(folder / "pairs/full.jsonl")
    ranked = rows(folder / "ranking/full.jsonl")
    assert len(made) == len(ranked) > 5
    for pair, rank in zip(made, ranked, strict=True):
        ((better,), (worse,)) = pair["chosen"], pair["rejected"]
        assert better["role"] == worse["role"] == "assistant"
        assert better["content"] != worse["content"]
        assert (rank["messages"], rank["chosen"], rank["rejected"]) == (pair["prompt"], better, worse)


def test_pairs_of_steps_part_at_the_incorrect_step(folder: Path) -> None:
    made = rows(folder / "pairs/step.jsonl")
    assert any(pair["prefix"] for pair in made)
    for pair in made:
        better, worse = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert better.startswith(pair["prefix"])
        assert worse.startswith(pair["prefix"])
        assert better != worse
        assert "\n" not in better[len(pair["prefix"]) :] + worse[len(pair["prefix"]) :]


PATH = "First.\nSecond.\nThe answer is 6."


@pytest.mark.parametrize(
    ("path", "solution", "at", "expected"),
    [
        (PATH, "...\nMended.\nThe answer is 5.", 2, ("First.\n", "Mended.", "Second.")),
        (PATH, "Begun.\nThe answer is 5.", 1, ("", "Begun.", "First.")),
        (PATH, "...\nThe answer is 5.", 3, ("First.\nSecond.\n", "The answer is 5.", "The answer is 6.")),
        (PATH, "...\nThird.\nThe answer is 5.", 3, ("First.\nSecond.\n", "Third.", "The answer is 6.")),
        ("The answer is 6.", "The answer is 5.", 1, ("", "The answer is 5.", "The answer is 6.")),
        (PATH, "Afresh.\nMended.\nThe answer is 5.", 2, None),
        (PATH, "...\nSecond.\nThe answer is 5.", 2, None),
        (PATH, "First.\nThe answer is 5.", None, None),
    ],
)
def test_steps_of_a_pair(path: str, solution: str, at: int | None, expected: tuple[str, str, str] | None) -> None:
    made = paired(path, solution, at, "step")
    if expected is None:
        assert made == []
    else:
        prefix, better, worse = expected
        assert made == [(prefix, prefix + better, prefix + worse)]


def test_a_pair_of_solutions_states_each_answer_once() -> None:
    better, worse = "First.\nMended.\nThe answer is 5.", "First.\nSecond.\nThe answer is 6."
    assert paired(PATH, "...\nMended.\nThe answer is 5.", 2, "full") == [("", better, worse)]


def paired(path: str, solution: str, at: int | None, kind: PairKind) -> list[tuple[str, str, str]]:
    row = sample("q5", path, "bad")
    mended = [correction(row, solution, at), replace(correction(row, solution, at), id="again")]
    found = preference_pairs([question(5)], [row], [graded(row, "incorrect", "6")], mended, LINES, kind)
    return [(pair.prefix, pair.chosen, pair.rejected) for pair in found]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (["One.", "Two."], ("One. ", "Two.")),
        (["One.", "The answer is 5."], ("One. ", "So 5.")),
        (["The answer is 5."], ("", "So 5.")),
    ],
)
def test_a_solution_begun_in_a_format_of_one_line(steps: list[str], expected: tuple[str, str]) -> None:
    assert split_last_step(SPACES, question(5), steps, "5") == expected


def test_llama_factory_finds_its_files(folder: Path) -> None:
    about = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(about) == {"chat-cot", "chat-lema", "ranking-full", "ranking-step"}
    for name, entry in about.items():
        (first, *_) = rows(folder / entry["file_name"])
        assert set(entry["columns"].values()) <= first.keys()
        assert entry.get("ranking", False) is name.startswith("ranking")
        roles = {entry["tags"][f"{role}_tag"] for role in ("user", "assistant", "system")}
        assert {message["role"] for message in first["messages"]} <= roles
        # Spelt as in data/README.md of LLaMA-Factory, which reads no other keys.
        assert set(entry) <= {"file_name", "formatting", "ranking", "columns", "tags"}
        assert set(entry["columns"]) <= {"messages", "chosen", "rejected"}


TURN = {
    "type": "object", "required": ["role", "content"], "additionalProperties": False,
    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": {"type": "string", "minLength": 1}},
}  # fmt: skip
SAID = {"allOf": [TURN, {"properties": {"role": {"const": "assistant"}}}]}
CHAT = {"type": "array", "minItems": 1, "items": TURN}
# The columns that each trainer's documents ask for. Axolotl: chat_template in docs/dataset-formats/conversation.qmd,
# chat_template.default in docs/rlhf.qmd. LLaMA-Factory: data/README.md, OpenAI format and preferences of ShareGPT.
# TRL: docs/source/dataset_formats.md, conversational language modelling, prompt-completion and preference.
SHAPES: dict[str, dict[str, Any]] = {
    "chat": {"messages": CHAT},
    "prompt_completion": {"prompt": CHAT, "completion": CHAT},
    "pairs": {"prompt": CHAT, "chosen": CHAT, "rejected": CHAT},
    "ranking": {"messages": CHAT, "chosen": SAID, "rejected": SAID},
}
# LLaMA-Factory reads user and assistant in turns, and rejects a conversation in which they do not alternate: whole
# ones end with the assistant, the prompts of a preference with the user.
LAST = {"chat": ("messages", "assistant"), "ranking": ("messages", "user"), "pairs": ("prompt", "user")}


def test_rows_have_the_shapes_that_the_trainers_document(folder: Path) -> None:
    for kind, properties in SHAPES.items():
        shape = Draft202012Validator({"type": "object", "required": list(properties), "properties": properties})
        files = list((folder / kind).glob("*.jsonl"))
        assert files
        for row in (row for file in files for row in rows(file)):
            assert [error.message for error in shape.iter_errors(row)] == []
            column, last = LAST.get(kind, ("completion", "assistant"))
            roles = [turn["role"] for turn in row[column] if turn["role"] != "system"]
            assert roles[-1] == last
            assert all(one != other for one, other in pairwise(roles))


def test_datasets_loads_every_configuration(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    configs = datasets.get_dataset_config_names(str(folder))
    assert set(configs) == {one["config_name"] for one in header(folder)["configs"]}
    assert len(configs) == 8
    for name in configs:
        loaded = datasets.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path))
        kind, _, rest = name.partition("-")
        assert len(loaded) == len(rows(folder / kind / f"{rest}.jsonl"))
    usual = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    assert usual.to_list() == rows(folder / "chat/lema.jsonl")


def test_the_card_says_where_it_all_comes_from(folder: Path) -> None:
    text, head, made = (folder / "README.md").read_text(encoding="utf-8"), header(folder), given()
    assert (head["license"], head["pretty_name"]) == ("mit", SPEC.title)
    assert [one["config_name"] for one in head["configs"] if one.get("default")] == ["chat-lema"]
    assert "# Sums \\| with mistakes" in text
    assert "| toy | cc0-1.0 |" in text
    assert f"| corrections accepted | {sum(row.accepted for row in made['verdicts']):,} |" in text
    assert f"| rows of lema: corrections | {sum(row.kind == 'correction' for row in made['mix']['lema'])} |" in text
    dropped = sum(any(drop.filter == "answer_matches" for drop in row.drops) for row in made["verdicts"])
    assert f"| answer\\_matches | – | {dropped} |" in text
    for row in (made["samples"][0], made["corrections"][0]):
        assert row.model in text
        assert row.prompt in text
    for digest in made["plan"]["mix"]["lema"]["formats"].values():
        assert digest in text
    assert "export@demo" in text
    assert "do not say where" not in text
    for block in text.split("```yaml\n")[1:]:
        for dataset in yaml.safe_load(block.partition("```")[0])["datasets"]:
            assert (folder / dataset["path"]).is_file()


def filters(folder: Path) -> list[str]:
    """What the card says of filters, a line each."""
    text = (folder / "README.md").read_text(encoding="utf-8").partition("## Filters\n\n")[2].partition("\n\n#")[0]
    return [line for line in text.splitlines()[2:] if line]


def test_the_card_lists_every_filter_that_judged(folder: Path, tmp_path: Path) -> None:
    judged = [finding.filter for finding in WORLD["verdicts"][0].findings]
    assert judged[-1] == "contamination"
    assert [line.split(" | ")[0].strip("| ").replace("\\", "") for line in filters(folder)] == judged
    assert '"ngram": 13' in filters(folder)[-1]
    plan = {**given()["plan"], "verdicts": {"filters": [], "contamination": False}}
    export(**given(plan=plan, verdicts=[], corrections=[]), folder=tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "every correction was accepted" in text
    assert "Contamination is off" in text


def test_the_card_says_who_located_and_who_judged(tmp_path: Path) -> None:
    wrong = [row.sample_id for row in WORLD["corrections"]][:9]
    locations = [located(name, model="injected" if at < 2 else "finder 1") for at, name in enumerate(wrong)]
    options = {"model": "large", "prompt": "ef" * 32}
    used = [{"use": "judge", "options": own} for own in ({"model": "small"}, options)]
    plan = {**given()["plan"], "verdicts": {"filters": used, "contamination": False}}
    says = (Finding(1, None, "judge"), Finding(0, "the judge says no", "judge-2"))
    verdicts = [replace(row, accepted=False, dropped_by="judge-2", findings=says) for row in WORLD["verdicts"]]
    export(**given(plan=plan, locations=locations, verdicts=verdicts), folder=tmp_path)
    count = len(verdicts)
    assert filters(tmp_path)[0] == '| judge | {"model": "small"} | 0 | 0 |'
    assert filters(tmp_path)[1].endswith(f" | {count} | {count} |")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"| locator | finder 1 | {'12' * 32} | 7 | 21 |" in text
    assert "injected |" not in text
    assert f"| filter judge-2 | large | {'ef' * 32} | – | – |" in text


def test_same_rows_same_bytes(folder: Path, tmp_path: Path) -> None:
    export(**given(), folder=tmp_path)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(names) == 10
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_nothing_accepted_is_an_export_without_pairs(tmp_path: Path) -> None:
    refused = [replace(row, accepted=False) for row in WORLD["verdicts"]]
    export(**given(verdicts=refused), folder=tmp_path)
    assert not (tmp_path / "pairs").exists()
    assert header(tmp_path)["configs"][0]["config_name"] == "chat-cot"
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    export(**given(verdicts=refused, mix={"lema": []}), folder=tmp_path)
    assert "configs" not in header(tmp_path)
    assert "nothing to load" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_without_a_word_about_licences_the_card_says_so_and_that_masks_are_not_in_it(tmp_path: Path) -> None:
    mixes = {"lema": [replace(row, masked=((0, 1),)) for row in given()["mix"]["lema"]]}
    export(**given(mix=mixes, spec=ExportSpec()), folder=tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "do not say where" in text
    assert header(tmp_path)["pretty_name"] == "LEMA: demo"
    assert "license" not in header(tmp_path)
    assert "states no source" in text


def test_only_what_was_accepted_is_paired(folder: Path) -> None:
    judged = {row.id: row.accepted for row in given()["verdicts"]}
    assert False in judged.values()
    for kind in ("full", "step"):
        assert all(judged[row["source_id"]] for row in rows(folder / f"pairs/{kind}.jsonl"))
