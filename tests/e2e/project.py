"""A project of a user's: a git and DVC repository with a copy of the code, the recipes and a tiny recipe of its own.

Its student is a folder of a few bytes that nobody loads, its samplers are scripted: torch is never needed before
`adapter`, so these tests stop at `mix`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from pyarrow import parquet

from lema.tasks.word_problems import word_problems

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
COPIED = ("lema", "recipes", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore", "constraints.txt", "data/sources")
MIX = ("mix@tiny-cot", "mix@tiny-lema")
OPTIONS = {"seed": 5, "steps": [1, 2], "largest": 30}
# Said in a prompt, and by the environment: nothing that is versioned may repeat them.
CANARY = "Sing like a canary before you solve."
SECRET = "sk-canary-8dfa1"
SECRET_NAME = "LEMA_TEST_KEY"
MODEL = {"config.json": "{}\n", "model.safetensors": "no weights"}


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and the stages that `dvc repro` ran."""

    code: int
    text: str

    @property
    def ran(self) -> list[str]:
        return re.findall(r"Running stage '([^']+)'", self.text)

    @property
    def bought(self) -> dict[str, tuple[int, int, int]]:
        """Requests, hits and bought completions by artifact."""
        found = re.findall(r"^(\w+) \S+: (\d+) requests, (\d+) hits, (\d+) bought", self.text, re.MULTILINE)
        return {artifact: (int(total), int(hits), int(new)) for artifact, total, hits, new in found}


class Project:
    """A project at `root`; commands run in it as a user would run them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = environment(root)

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=self.root, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *command: str, code: int | None = 0) -> Outcome:
        """Run a command and, unless `code` is None, insist on its exit code."""
        process = self.start(*command)
        text, _ = process.communicate()
        assert code is None or process.returncode == code, f"{command}: {process.returncode}\n{text}"
        return Outcome(process.returncode, text)

    def make(self, artifact: str, target: str = "tiny", *options: str, code: int | None = 0) -> Outcome:
        return self.run("lema", "make", artifact, target, *options, code=code)

    def repro(self, *targets: str) -> Outcome:
        return self.run("dvc", "repro", *(targets or MIX))

    def read(self, name: str) -> bytes:
        return (self.root / "data" / "tiny" / name).read_bytes()

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} holds {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def settings(self, name: str) -> Any:
        return yaml.safe_load((self.root / name).read_text(encoding="utf-8"))

    def write(self, name: str, settings: Any) -> None:
        """Write settings as YAML that DVC and lema read alike."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")

    def change(self, name: str, change: Any) -> None:
        """Edit settings in place by a function."""
        settings = self.settings(name)
        change(settings)
        self.write(name, settings)

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "State")

    def versioned(self) -> dict[Path, str]:
        """What is kept or shared, as text; of Parquet its rows, since its bytes are compressed."""
        files = [path for name in ("data", "completions") for path in (self.root / name).rglob("*") if path.is_file()]
        return {path: readable(path) for path in (*files, self.root / "dvc.lock")}

    def copy(self, root: Path) -> "Project":
        """The same project elsewhere, with all that it has made."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)


def readable(path: Path) -> str:
    if path.suffix != ".parquet":
        return path.read_text(encoding="utf-8")
    file = parquet.ParquetFile(path)
    return f"{file.schema_arrow.metadata} {file.read().to_pylist()}"


def environment(root: Path) -> dict[str, str]:
    """That of the tests, with the project's own code first, and nothing of the user's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LEMA_", "DVC_", "GIT_", "RAY_"))}
    who = {f"GIT_{role}_{part}": "test@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    return {
        **kept,
        **who,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # threads of torch that wait for one another are slow where tests share processors
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(root.parent / f"{root.name}-site"),
        SECRET_NAME: SECRET,
    }


def new_project(root: Path) -> Project:
    """A repository with one commit and nothing made."""
    for name in COPIED:
        source, target = ROOT / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            # With __pycache__, so that nothing is compiled again; what another process is writing there comes and goes.
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
        elif source.is_file():
            shutil.copy2(source, target)
    for name, text in MODEL.items():
        (root / "students" / "none").mkdir(parents=True, exist_ok=True)
        (root / "students" / "none" / name).write_text(text, encoding="utf-8")
    project = Project(root)
    project.write("params.yaml", params())
    project.write("recipes/tiny.yaml", recipe())
    project.edit(".dvc/config", "autostage = true", "autostage = false")  # staging belongs to `commit`
    project.run("git", "init", "-q", "-b", "main")
    project.commit()
    return project


def params(executor: str = "local", url: str = "http://127.0.0.1:9/v1") -> dict[str, Any]:
    return {
        "recipes": {"tiny": "students/none"},
        "runs": {f"tiny-{arm}": {"recipe": "tiny", "arm": arm} for arm in ("cot", "lema")},
        "run": {
            "executor": executor,
            "endpoints": {"served": {"url": url, "key": SECRET_NAME, "concurrency": 4}},
        },
    }


def recipe() -> dict[str, Any]:
    """20 questions asked three times: `careful` is right one time in three, `hasty` guesses or says nothing."""
    return {
        "source": {"generator": "word_problems", "train": 40, "test": 10, "options": OPTIONS},
        "questions": {"task": "word_problems", "train": 20, "test": 5},
        "base": {"folder": "students/none", "chat": False},
        "models": {
            "careful": {"backend": "scripted", "options": {"rules": rules()}},
            "hasty": {"backend": "scripted", "options": {"replies": ["2 + 3 = 6.\nThe answer is 6.", "No idea."]}},
            "served": {"backend": "openai", "endpoint": "served", "name": "served-1"},
            "reference": {"backend": "reference"},
        },
        "samples": {
            "samplers": {
                "careful": {"model": "careful", "prompt": "cot"},
                "hasty": {"model": "hasty", "prompt": {"system": CANARY, "user": "{{ question }}"}, "paths": 2},
            }
        },
        "corrections": {"model": "reference", "prompt": "correct_reference", "hint": "rationale"},
        "verdicts": {"filters": ["has_fields", "answer_matches", "changed", "consistent_prefix", "duplicate"]},
        "mix": {
            "cot": "cot",
            "correction": "correction",
            "arms": {"cot": {"cot": {}}, "lema": {"cot": {"samplers": ["careful"]}, "corrections": {}}},
        },
        "adapter": {"epochs": 1},
        "answers": {"prompt": "cot"},
    }


def rules() -> list[dict[str, str]]:
    """Every third question is answered with its rationale, the others with a last number that is off by one."""
    made = (record for split, record in word_problems.generate(**OPTIONS) if split == "train")  # type: ignore[misc]
    return [
        {
            "when": record["question"],
            "reply": f"{record['rationale']}\nThe answer is {int(record['answer']) + (place % 3 > 0)}.",
        }
        for place, record in enumerate(islice(made, 60))
    ]
