"""The artifacts of a recipe: their names in the order of the flow, what their rows are and where they lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lema.rows import Answer, Correction, Evolved, Example, Grade, Location, Probe, Question, Record, Sample, Verdict

DATA = Path("data")
# In the order of the flow; the value is the class of the rows, None for an artifact that is not rows.
ARTIFACTS: Mapping[str, type | None] = {
    "plan": None,
    "source": Record,
    "questions": Question,
    "base": None,
    "samples": Sample,
    "grades": Grade,
    "locations": Location,
    "corrections": Correction,
    "verdicts": Verdict,
    "evolved": Evolved,
    "mix": Example,
    "export": None,
    "adapter": None,
    "answers": Answer,
    "probe": Probe,
    "scores": None,
    "report": None,
}
BY_ARM = ("mix", "adapter")
PLACES: Mapping[str, str] = {
    "plan": "plan.yaml",
    "base": "base",
    "mix": "mix/{arm}.parquet",
    "export": "export",
    "adapter": "adapters/{arm}",
    "scores": "scores.json",
    "report": "report.html",
}


def artifact_path(artifact: str, recipe: str, arm: str | None = None) -> Path:
    """Where an artifact lies, relative to the project's root."""
    return DATA / recipe / PLACES.get(artifact, f"{artifact}.parquet").format(arm=arm)


def read_plan(recipe: str) -> dict[str, Any]:
    """The plan of a recipe that was written; empty when there is none."""
    path = artifact_path("plan", recipe)
    return load_yaml(path) if path.exists() else {}


def load_yaml(path: Path) -> Any:
    """What a file of YAML holds, unchecked. The loader in C, where PyYAML has it, takes a tenth of the time."""
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
