"""The pipeline: which stage makes which artifact, what it reads and where it lies.

A stage's positional parameters name the artifacts that it reads, its keyword parameters what it is given: its part
of the recipe, its task, models and effects. This module looks both up, calls the stage and writes the result.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import yaml

from lema import component
from lema.engine import files, parquet, records
from lema.engine.generate import Generate
from lema.engine.store import Store
from lema.errors import RecipeError, RunError, allowed
from lema.models import Model
from lema.plan import Loaded, check, load_params, load_recipe, make_plan
from lema.recipe import ModelSpec, Params
from lema.rows import Answer, Correction, Example, Grade, Question, Record, Sample, Verdict

# Artifacts of rows, in the order of the flow; then the others.
ROWS: Mapping[str, type] = {
    "source": Record,
    "questions": Question,
    "samples": Sample,
    "grades": Grade,
    "corrections": Correction,
    "verdicts": Verdict,
    "mix": Example,
    "answers": Answer,
}
ARTIFACTS = (
    *("plan", "source", "questions", "base", "samples", "grades", "corrections", "verdicts"),
    *("mix", "adapter", "answers", "scores", "report"),
)
BY_ARM = ("mix", "adapter")
