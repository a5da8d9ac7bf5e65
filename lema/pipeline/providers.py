"""What the pipeline gives to stages that need a local model: models by name, the base, adapters and what came of
their training."""

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from lema.compute import files
from lema.compute.artifacts import artifact_path
from lema.compute.progress import progress_callback
from lema.errors import RunError
from lema.filters import Filter
from lema.models.types import Model
from lema.pipeline.fingerprint import fingerprint
from lema.recipe import part_loader
from lema.recipe.params import Run
from lema.recipe.schema import ModelSpec
from lema.recipe.training_schema import BaseSpec
from lema.rows import Correction, Message, Question, Sample, Verdict
from lema.stages.verdicts import verdicts
from lema.tasks import Task
from lema.train.base import open_base, weights_digest, write_base
from lema.train.likelihood import completion_losses
from lema.train.merge import merge_adapter


def build_judge(
    task: Task, filters: Callable[[], Mapping[str, Filter]]
) -> Callable[[Iterable[Question], Iterable[Sample], Sequence[Correction]], Iterator[Verdict]]:
    """The stage `verdicts` as a function of rows, for a stage that asks it again and again: filters are made with the
    first call, if there is one, and no two answers are compared twice."""
    made, same = cache(filters), replace(task, equal=cache(task.equal))
    return lambda questions, samples, corrections: verdicts(questions, samples, corrections, task=same, filters=made())


def named_model(name: str, spec: ModelSpec) -> Model:
    """A model of the recipe. Its options decide replies too, so they are in its identity; of a program, which has
    neither a name nor an endpoint, so does its code."""
    program = spec.endpoint is None and spec.name is None
    code = fingerprint([part_loader.module_name("models", spec.backend)], Path.cwd()) if program else None
    called = spec.name
    if spec.backend in ("transformers", "vllm") and spec.name and Path(spec.name).is_dir():
        # The weights, not where they lie.
        called = weights_digest(Path(spec.name))
    parts = [spec.backend, spec.endpoint, called, spec.revision, code, _options(spec)]
    return Model(
        label=name,
        backend=spec.backend,
        identity=" ".join(part for part in parts if part),
        name=spec.name,
        revision=spec.revision,
        endpoint=spec.endpoint,
        chat=spec.chat,
        options=spec.options,
        folder=spec.name if spec.endpoint is None else None,
    )


def adapter_model(name: str, spec: ModelSpec, base: Path, adapter: Path) -> Model:
    """A model of the recipe that is the student of another one."""
    asked = replace(base_model(base, spec.backend), options=spec.options)
    model = adapted(asked, name, adapter)
    return replace(model, identity=" ".join(filter(None, [model.identity, _options(spec)])))


def _options(spec: ModelSpec) -> str | None:
    """As a hash: the identity stands in every row, and options may be long or private."""
    digest = hashlib.sha256(json.dumps(spec.options, sort_keys=True).encode()).hexdigest()[:16]
    return f"options {digest}" if spec.options else None


def base_model(folder: Path, backend: str = "transformers") -> Model:
    """The student before fine-tuning."""
    base = open_base(folder, files.home())
    return Model(
        label="base",
        backend=backend,
        identity=f"{backend} {base.identity}",
        revision=base.revision,
        chat=base.chat,
        folder=base.location,
    )


def adapted(base: Model, arm: str, folder: Path) -> Model:
    """The student with the adapter of an arm, or the whole model that `method: full` made of it; the hash of the
    weights makes it a model of its own."""
    adapter = folder / "adapter_model.safetensors"
    if not adapter.is_file():
        return replace(
            base, label=arm, identity=f"{base.backend} {weights_digest(folder)}", revision=None, folder=str(folder)
        )
    weights = hashlib.sha256(adapter.read_bytes()).hexdigest()
    return replace(base, label=arm, identity=f"{base.identity} adapter {weights}", adapter=str(folder))


def build_base(spec: BaseSpec, folder: Path) -> None:
    with progress_callback("base") as log:
        write_base(spec, folder, files.home(), log)


def losses(run: Run, model: Model, texts: Sequence[tuple[Sequence[Message], str]]) -> list[tuple[float, int] | None]:
    with progress_callback("probe") as log:
        return completion_losses(model, run, texts, log)


def merge_student(recipe: str, arm: str | None, out: Path, seed: int | None = None) -> None:
    """Write the base with an arm's adapter added into it as a model folder; raises RunError. An arm that was trained
    with several seeds has an adapter for each."""
    if arm is None:
        raise RunError("merge needs an arm: RECIPE/ARM")
    base, adapter = artifact_path("base", recipe), artifact_path("adapter", recipe, arm)
    seeds = sorted((one.parent.name for one in adapter.glob("*/training.json")), key=int)
    if seeds and str(seed) not in seeds:
        raise RunError(f"{recipe}/{arm} was trained with several seeds: --seed {' or '.join(seeds)}")
    if seed is not None and not seeds:
        raise RunError(f"{recipe}/{arm} was trained with one seed; leave --seed out")
    if out.exists():
        raise RunError(f"{out} is there already; name a new folder")
    adapter = adapter / str(seed) if seeds else adapter
    for artifact, path in (("base", base / "base.json"), ("adapter", adapter / "training.json")):
        if not path.is_file():
            raise RunError(f"no {artifact} of {recipe}/{arm} yet: lema repro, or lema make {artifact}")
    with files.atomic(out) as folder:
        folder.mkdir()
        merge_adapter(open_base(base, files.home()), adapter, folder)


def training(folders: Sequence[Path], curve: Path) -> dict[str, Any]:
    """What the report shows of the trainings of an arm: the record of the first, the losses as means over all seeds,
    and the curve."""
    records = [json.loads((folder / "training.json").read_text(encoding="utf-8")) for folder in folders]
    record = dict(records[0])
    if len(records) > 1:
        record["seeds"] = ", ".join(folder.name for folder in folders)
        for name in ("first_loss", "final_loss"):
            known = [float(one[name]) for one in records if one[name] is not None]
            record[name] = fmean(known) if known else None
    with curve.open(encoding="utf-8") as lines:
        points = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(lines)]
    return {**record, "curve": points}
