"""What the documents say is so: commands exist and take these arguments, files are there, recipes are right."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from lema.check.check import check
from lema.cli import app
from lema.pipeline.run import ARTIFACTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
# A path in backticks; LOCAL are folders that appear with use.
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:md|py|toml|txt|yaml))`")
LOCAL = ("completions/", ".lema/", ".venv/")
# Where a machine keeps its users and their work; joined here so that this file does not hold them.
MACHINE = re.compile("|".join(["/" + place + "/" for place in ("work", "home", "Users", "root")] + [r"[A-Z]:\\\w"]))


def blocks(text: str, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(text) if kind == language]


def commands(group: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Every command of the command line, with its groups."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield (*above, name)


CLI: Any = typer.main.get_command(app)
COMMANDS = list(commands(CLI))


def shell_lines() -> list[list[str]]:
    """The arguments of every call of lema in a fenced shell block."""
    lines = [
        line for path in DOCUMENTS for block in blocks(path.read_text("utf-8"), "sh") for line in block.splitlines()
    ]
    words = [shlex.split(line, comments=True) for line in lines]
    return [call[1:] for call in words if call and Path(call[0]).name == "lema"]


def leaf(arguments: list[str]) -> tuple[tuple[str, ...], list[str]]:
    """The command that a line calls, and what it is given."""
    for count in (2, 1):
        if tuple(arguments[:count]) in COMMANDS:
            return tuple(arguments[:count]), arguments[count:]
    raise AssertionError(f"no such command: lema {shlex.join(arguments)}")


def test_readme_opens_with_the_two_commands() -> None:
    assert len(shell_lines()) > 5
    assert [line.split("#")[0].strip() for line in blocks(README, "sh")[0].splitlines()] == ["make demo", "make test"]
    assert README.index("make demo") < 40
    assert len(README.splitlines()) < 240


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: tuple[str, ...]) -> None:
    assert f"`lema {' '.join(command)}" in README
    done = CliRunner().invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "Usage" in done.output


@pytest.mark.parametrize("arguments", shell_lines(), ids=shlex.join)
def test_every_call_in_the_documents_parses(arguments: list[str]) -> None:
    command, rest = leaf(arguments)
    found = CLI
    for name in command:
        found = found.commands[name]
    context = found.make_context(command[-1], list(rest))
    if "artifact" in context.params:
        assert context.params["artifact"] in ARTIFACTS
        assert context.params["target"].partition("/")[0] in {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


def test_the_readme_commits_what_the_other_side_of_a_team_needs() -> None:
    """Where the remote is, what was made with what, which completions there are: `dvc pull` knows it from these."""
    (added,) = re.findall(r"^git add (.*)$", README, re.MULTILINE)
    assert {".dvc/config", "dvc.lock", "params.yaml", "recipes", "completions.dvc"} == set(added.split())


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    said = {name for path in DOCUMENTS for name in re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text("utf-8"), re.M)}
    assert said
    assert said <= targets


def outputs() -> set[str]:
    """What the stages of dvc.yaml make for the demo, relative to the root."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
    kinds = [stage["do"].get(kind, ()) for stage in stages.values() for kind in ("outs", "metrics", "plots")]
    made = "\n".join(one if isinstance(one, str) else next(iter(one)) for kind in kinds for one in kind)
    for place, name in {"${key}": "demo", "${item.recipe}": "demo", "${item.arm}": "<arm>"}.items():
        made = made.replace(place, name)
    return set(made.splitlines())


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    assert [link for link in LINK.findall(text) if not (path.parent / link).exists()] == []
    named = {name for name in PATH.findall(text) if not name.startswith(LOCAL)}
    assert {name for name in named if not (ROOT / name).exists() and not is_made(name)} == set()


def is_made(name: str) -> bool:
    """Whether a stage makes it, or all that lies in it."""
    made = outputs()
    places = {str(parent) for one in made for parent in [Path(one), *Path(one).parents]}
    return str(Path(name)) in places | {Path(one).name for one in made}


def test_the_table_of_artifacts_is_that_of_the_pipeline() -> None:
    rows = [line.split("|")[1:3] for line in README.splitlines() if line.startswith("| `") and "| `lema" not in line]
    table = {name.strip(" `"): re.findall(r"`([^`]+)`", places) for name, places in rows}
    assert list(table) == list(ARTIFACTS)
    said = {f"data/demo/{place}".rstrip("/") for places in table.values() for place in places}
    assert said == outputs()


def test_the_recipes_of_the_readme_are_without_mistakes(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    written = []
    for block in blocks(README, "yaml"):
        name = block.partition("\n")[0].removeprefix("# ")
        if name == "params.yaml":
            params = merged(params, yaml.safe_load(block))
        else:
            written.append(tmp_path / name)
            written[-1].write_text(block, encoding="utf-8")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    assert written
    keys = {endpoint["key"]: "x" for endpoint in params["run"]["endpoints"].values() if "key" in endpoint}
    for given in (None, written):
        assert check(given, tmp_path, keys).problems == ()


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in more.items():
        both[key] = merged(both[key], value) if isinstance(value, Mapping) and key in both else value
    return both


def test_the_floors_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "\n".join([*layers, ""]) in blocks((ROOT / "CONTRIBUTING.md").read_text("utf-8"), "")


def test_no_path_of_a_machine_in_any_file() -> None:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed.decode().split("\0")):
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or deleted and not yet committed
            continue
        found += [f"{name}:{number}: {line.strip()}" for number, line in enumerate(lines, 1) if MACHINE.search(line)]
    assert found == []
