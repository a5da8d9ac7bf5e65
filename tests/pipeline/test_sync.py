"""Two people, one DVC remote: completions go both ways, and nobody loses what only they have."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lema.completions.packs import pack_paths
from lema.completions.store import Store, packs_folder
from lema.compute import parquet
from lema.compute.artifacts import ARTIFACTS, artifact_path
from lema.errors import RunError
from lema.models.types import Completion
from lema.pipeline.sync import needed_completions, pull_packs, push_packs
from lema.rows import Evolved, Sample

Person = Callable[[str], None]


def name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def mine() -> Store:
    """The store of whoever is at work."""
    return Store(Path(".lema/journal"), packs_folder())


def buy(*texts: str) -> None:
    store = mine()
    store.add([(name(text), Completion(text, "stop")) for text in texts], model="m")
    store.seal()


def keys() -> set[str]:
    return {path.name for path in pack_paths(Path("completions"))}


@pytest.fixture
def become(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Go to somebody's clone of the project; the remote is a folder."""
    for variable in [one for one in os.environ if one.startswith(("LEMA_", "DVC_", "GIT_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))

    def become(who: str) -> None:
        root = tmp_path / who
        if not root.exists():
            (root / ".dvc").mkdir(parents=True)
            remote = f"[core]\nremote = team\n['remote \"team\"']\nurl = {tmp_path / 'remote'}\n"
            (root / ".dvc" / "config").write_text(remote)
            subprocess.run(["git", "init", "-q", root], check=True)
        monkeypatch.chdir(root)

    return become


def test_packs_go_both_ways(become: Person, tmp_path: Path) -> None:
    become("one")
    buy("a", "b")
    assert push_packs(mine()) == 1
    first = keys()
    pointer = Path("completions.dvc").read_bytes()

    become("two")
    buy("c")  # `dvc pull` would now refuse to touch the folder
    own = keys()
    Path("completions.dvc").write_bytes(pointer)
    assert pull_packs() == 1
    assert keys() == own | first
    assert [one and one.text for one in mine().get_many([name(text) for text in "abcd"])] == ["a", "b", "c", None]
    assert pull_packs() == 0
    # A damaged pack is fetched again, from the remote when the cache has no other copy.
    path = Path("completions") / first.pop()
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    shutil.rmtree(Path(".dvc/cache"), ignore_errors=True)
    with pytest.raises(RunError, match="is damaged"):
        mine().get(name("a"))
    assert pull_packs() == 1
    assert mine().get(name("a")) == Completion("a", "stop")

    # Whoever pushes does not forget what others pushed, fetched or not.
    become("three")
    buy("d")
    Path("completions.dvc").write_bytes(pointer)
    assert push_packs(mine()) == 2
    assert [path.name for path in Path("completions").iterdir() if path.suffix != ".parquet"] == []


def test_what_is_missing_is_said(become: Person, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    become("one")
    with pytest.raises(RunError, match="no completions to push yet"):
        push_packs(mine())
    with pytest.raises(RunError, match=r"no completions\.dvc here.*git pull"):
        pull_packs()
    buy("a")
    push_packs(mine())
    shutil.rmtree(".dvc/cache")
    shutil.rmtree("completions")
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(RunError, match="the team's completions cannot be fetched: ") as raised:
        pull_packs()
    assert "\n" not in str(raised.value)
    Path(".dvc/config").write_text("")
    for action in (pull_packs, lambda: push_packs(mine())):
        with pytest.raises(RunError, match="no DVC remote: dvc remote add --default team"):
            action()
    monkeypatch.setenv("LEMA_HOME", str(tmp_path / "home"))
    with pytest.raises(RunError, match="LEMA_HOME is set"):
        pull_packs()


RECIPE = """
source: {generator: word_problems, train: 10, test: 2}
questions: {task: word_problems}
base: {embedded: smollm2-135m-instruct}
models:
  strong: {backend: scripted, options: {replies: [x]}}
  critic: {backend: scripted, options: {replies: [y]}}
samples: {samplers: {strong: {model: strong, prompt: {user: "{{ question }}"}}}}
corrections: {model: strong, prompt: {user: "{{ path }}"}}
verdicts: {filters: [{judge: {model: critic, prompt: {user: "{{ path }}"}}}]}
mix: {cot: {user: "{{ question }}"}, correction: {user: "{{ path }}"}, arms: {cot: {cot: {}}}}
adapter: {epochs: 1}
answers: {prompt: {user: "{{ question }}"}}
"""


def test_what_a_recipe_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/tiny.yaml").write_text(RECIPE)
    with pytest.raises(RunError, match=r"data/tiny/samples\.parquet does not exist"):
        needed_completions(["tiny"])
    path = Sample("q/s/0", "q", "s", 0, "t", "stop", None, "m", "p", name("a"), 0, 0)
    imported = Sample("q/s/1", "q", "s", 1, "t", "stop", None, "import", "", "", 0, 0)
    new = Evolved(
        "q/e0", "q", 0, "t", ("1",), 1, True, None, "{}", "m", "p", name("b"), "m", "p", (name("c"), name("d")), 0, 0
    )  # fmt: skip
    rows = {"samples": [path, imported], "evolved": [new]}
    for artifact, row_type in ARTIFACTS.items():
        if row_type is not None and artifact != "mix":
            parquet.write_rows(artifact_path(artifact, "tiny"), row_type, rows.get(artifact, ()))
    assert needed_completions(["tiny"]) == ({name(text) for text in "abcd"}, {"critic"})
