"""`lema repro`: which DVC is started for what; what these do is tested in e2e/."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from lema.compute.artifacts import ARTIFACTS
from lema.errors import RunError
from lema.pipeline import repro as module
from lema.pipeline.repro import make_with_inputs, repro
from lema.pipeline.status import reads

PARAMS = {
    "recipes": {"one": "constraints.txt", "two": "data/one", "single": "constraints.txt"},
    "runs": {
        f"{recipe}-{arm}": {"recipe": recipe, "arm": arm}
        for recipe, arms in (("two", "ab"), ("one", "abc"), ("single", "a"))
        for arm in arms
    },
}


class Dvc:
    """Notes what it is asked; adapters that are asked for at a time wait for `at_once` of them."""

    def __init__(self, at_once: int, failing: str = "") -> None:
        self.asked: list[list[str]] = []
        self.barrier, self.failing = threading.Barrier(at_once, timeout=20), failing

    def __call__(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        assert environment["RAY_ADDRESS"] == "127.0.0.1:9"
        self.asked.append(list(command[1:]))
        if command[-1].startswith("adapter@"):
            self.barrier.wait()
        return 3 if command[-1] == self.failing else 0


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvc: Dvc, trainings: int, *arguments: str) -> int:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    monkeypatch.setattr(module, "_run", dvc)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS | {"run": {"trainings": trainings}}))
    return repro(arguments)


def test_one_training_at_a_time_is_plain_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc = Dvc(1)
    assert asked(tmp_path, monkeypatch, dvc, 1) == 0
    assert dvc.asked == [["repro"]]


def test_arms_of_a_recipe_are_trained_at_a_time_when_their_mixes_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc = Dvc(2)
    dvc.barrier = threading.Barrier(1)
    assert asked(tmp_path, monkeypatch, dvc, 2) == 0
    first, rest = dvc.asked[:4], dvc.asked[4:]
    assert first[0] == ["repro", "mix@one-a", "mix@one-b", "mix@one-c"]
    adapter = ["--wait-for-lock", "repro", "--single-item"]
    assert sorted(first[1:]) == [[*adapter, f"adapter@one-{arm}"] for arm in "abc"]
    assert rest[0] == ["repro", "mix@two-a", "mix@two-b"]
    assert sorted(rest[1:3]) == [[*adapter, f"adapter@two-{arm}"] for arm in "ab"]
    assert rest[3:] == [["repro"]]


def test_they_do_run_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARAMS, "recipes", {"two": "constraints.txt"})
    dvc = Dvc(2)
    assert asked(tmp_path, monkeypatch, dvc, 2) == 0
    assert not dvc.barrier.broken


def test_the_name_of_a_recipe_stands_for_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    for name in ("one", "apart"):
        (tmp_path / f"recipes/{name}.yaml").write_text("extends: demo.yaml\n")
    dvc = Dvc(1)
    assert asked(tmp_path, monkeypatch, dvc, 2, "one") == 0
    assert dvc.asked == [["repro", "export@one", "report@one"]]
    read = {name for artifact in ARTIFACTS if artifact != "plan" for name in reads(artifact)}
    assert set(module.LAST) == set(ARTIFACTS) - read
    with pytest.raises(RunError, match=r"^apart is not in params\.yaml, so DVC does not build it: lema repro apart$"):
        asked(tmp_path, monkeypatch, dvc, 1, "--dry", "apart")


@pytest.mark.parametrize(
    ("artifact", "arm", "target"), [("mix", "a", "mix@first"), ("grades", None, "grades@one"), ("mix", "b", None)]
)
def test_with_inputs_is_dvc_for_what_params_yaml_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: str, arm: str | None, target: str | None
) -> None:
    dvc = Dvc(1)
    monkeypatch.setitem(PARAMS, "runs", {"first": {"recipe": "one", "arm": "a"}})
    assert asked(tmp_path, monkeypatch, dvc, 1) == 0
    if target is None:
        with pytest.raises(RunError, match=r"^params\.yaml has no run of one/b$"):
            make_with_inputs(artifact, "one", arm)
    else:
        assert make_with_inputs(artifact, "one", arm) == 0
        assert dvc.asked[1:] == [["repro", target]]
        with pytest.raises(RunError, match="DVC builds it"):
            make_with_inputs(artifact, "one", arm, offline=True)


def test_what_a_user_asks_for_is_all_that_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc = Dvc(1)
    assert asked(tmp_path, monkeypatch, dvc, 2, "--dry", "adapter@one-a") == 0
    assert dvc.asked == [["repro", "--dry", "adapter@one-a"]]


def test_nothing_follows_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc = Dvc(1, failing="adapter@one-a")
    dvc.barrier = threading.Barrier(1)
    monkeypatch.setattr(ThreadPoolExecutor, "map", lambda _, function, names: map(function, names))
    assert asked(tmp_path, monkeypatch, dvc, 2) == 3
    assert [command[-1] for command in dvc.asked] == ["mix@one-c", "adapter@one-a"]
