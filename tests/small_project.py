"""A small project on disk: one good recipe that others extend, its prompts and params.yaml."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = """\
source: {generator: word_problems, train: 40, test: 20}
questions: {task: word_problems, train: 30, test: 20}
base: {embedded: smollm2-135m-instruct}
models:
  strong: {backend: openai, endpoint: local, name: strong-1}
samples:
  samplers:
    student: {model: base, prompt: solve, paths: 2}
corrections: {model: strong, prompt: correct}
verdicts: {filters: [has_fields, max_tokens: {limit: 50}]}
mix:
  cot: cot
  correction: correction
  arms:
    cot: {cot: {}}
    lema: {cot: {}, corrections: {}}
adapter: {epochs: 1}
answers: {prompt: cot}
"""
PROMPTS = {
    "solve": "user: '{{ question }}'\n",
    "correct": "user: |\n  {{ question }}\n  {{ path }}\n",
    "cot": "user: '{{ question }}'\nassistant: |\n  {{ steps | join(' ') }} The answer is {{ answer }}.\n",
    "correction": "user: '{{ question }} {{ path }}'\nassistant: Step {{ incorrect_step }}. {{ explanation }}\n",
}
PARAMS = """\
recipes:
  good: constraints.txt
runs:
  good-cot: {recipe: good, arm: cot}
  good-lema: {recipe: good, arm: lema}
run:
  endpoints:
    local: {url: "http://127.0.0.1:1/v1"}
    paid: {url: "http://127.0.0.1:2/v1", key: PAID_KEY}
"""


class Project:
    """A folder with files of a user's."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def edit(self, name: str, old: str, new: str) -> Path:
        text = (self.root / name).read_text(encoding="utf-8")
        assert old in text
        return self.write(name, text.replace(old, new))


def small_project(root: Path) -> Project:
    """The project, written into a folder."""
    project = Project(root)
    project.write("recipes/good.yaml", GOOD)
    for name, text in PROMPTS.items():
        project.write(f"recipes/prompts/{name}.yaml", text)
    project.write("params.yaml", PARAMS)
    return project


def enter_project(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Go to a project to make its artifacts in this process."""
    shutil.copy(ROOT / "constraints.txt", root)
    patch.chdir(root)
    patch.delenv("LEMA_HOME", raising=False)
    patch.setattr("lema.compute.files.die_with_parent", lambda: None)
