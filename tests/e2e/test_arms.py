"""Arms at the same time, with a real DVC: the stages of a project in which a stage is one line of shell."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.project import ROOT, environment

BIN = Path(sys.executable).parent
# An adapter is done when the other one has begun: one after the other they never are.
ADAPTER = "touch begun-${item.arm}; for i in $(seq 600); do test -e begun-${item.other} && break; sleep 0.1; done"
STAGES = {
    "mix": {
        "foreach": "${runs}",
        "do": {"cmd": "cp source mix-${item.arm}", "deps": ["source"], "outs": ["mix-${item.arm}"]},
    },
    "adapter": {
        "foreach": "${runs}",
        "do": {
            "cmd": f"{ADAPTER}; test -e begun-${{item.other}} && cp mix-${{item.arm}} adapter-${{item.arm}}",
            "deps": ["mix-${item.arm}"],
            "outs": ["adapter-${item.arm}"],
        },
    },
}
PARAMS = {
    "recipes": {"r": "source"},
    "runs": {f"r-{arm}": {"recipe": "r", "arm": arm} for arm in "ab"},
    "run": {"trainings": 2},
}
OTHER = {"a": "b", "b": "a"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_arms_are_trained_at_the_same_time_and_only_those_that_must(tmp_path: Path) -> None:
    stages = yaml.safe_load(yaml.safe_dump({"stages": STAGES}))
    for stage in stages["stages"].values():
        stage["foreach"] = {name: run | {"other": OTHER[run["arm"]]} for name, run in PARAMS["runs"].items()}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(stages))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (tmp_path / "source").write_text("one\n")
    # A Ray that is there already; nobody joins it.
    env = environment(tmp_path) | {"RAY_ADDRESS": "127.0.0.1:9", "PYTHONPATH": str(ROOT)}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    run(str(BIN / "dvc"), "init", "--no-scm", "-q")
    first = run(str(BIN / "lema"), "repro")
    assert sorted(line for line in first.splitlines() if line.startswith("Running stage 'adapter")) == [
        "Running stage 'adapter@r-a':",
        "Running stage 'adapter@r-b':",
    ]
    lock = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]
    assert sorted(lock) == ["adapter@r-a", "adapter@r-b", "mix@r-a", "mix@r-b"]
    assert "Running stage" not in run(str(BIN / "lema"), "repro")
