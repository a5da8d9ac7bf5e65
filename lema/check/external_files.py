"""What a recipe reads from outside itself: files of the user's, and what other recipes make (rounds)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lema.errors import allowed
from lema.recipe.load import RECIPES, Draft, options_path, read_draft
from lema.recipe.sampler_schema import ImportSampler
from lema.recipe.yaml import KeyPath

LOCAL_BACKENDS = ("transformers", "vllm")  # backends that load weights
FORMATS = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True, slots=True)
class Found:
    """Something wrong at a path of the recipe; `key` when it is the key that is meant, not the value."""

    path: KeyPath
    message: str
    key: bool = False


def asked_models(draft: Draft) -> Iterator[tuple[KeyPath, str]]:
    """The models that are asked, those of filters included, each with the place where the recipe names it."""
    tree = draft.tree
    places: list[KeyPath] = [("samples", "samplers", name) for name in tree.keys("samples", "samplers")]
    places += [("locations",), ("corrections",), ("evolved", "write"), ("evolved", "solve")]
    places += [options_path(tree, path) for path, _ in tree.items("verdicts", "filters")]
    for path in places:
        found = tree.find((*path, "model"))
        if found and isinstance(found.value, str):
            yield (*path, "model"), found.value


def file_rules(draft: Draft, root: Path) -> Iterator[Found]:
    """Files outside the recipe are there, unless another recipe makes them."""
    for path, name, folder in _named_files(draft):
        if PurePosixPath(name).is_absolute():
            yield Found(path, f"{name} is an absolute path; write it relative to the project's folder")
        elif not folder and PurePosixPath(name).suffix not in FORMATS:
            yield Found(path, f"{name} needs one of the endings {', '.join(FORMATS)}")
        elif not _maker(name, root) and not ((root / name).is_dir() if folder else (root / name).is_file()):
            yield Found(path, f"there is no {'folder' if folder else 'file'} {name}")


def _maker(name: str, root: Path) -> str | None:
    """The recipe that makes a file, which may not be made yet: a round that builds on another recipe."""
    parts = PurePosixPath(name).parts
    if len(parts) > 2 and parts[0] == "data" and (root / RECIPES / f"{parts[1]}.yaml").is_file():
        return parts[1]
    return None


def outside_files(draft: Draft) -> Iterator[tuple[KeyPath, str, bool]]:
    """Files and folders that a recipe reads from outside: place in the recipe, path, whether it is a folder."""
    yield from _named_files(draft)
    source, models = draft.sections["source"], draft.sections["models"] or {}
    if source and source.evolved:
        for split in ("train", "test"):
            yield from ((("source", "evolved"), name, False) for name in source.artifacts(split))
    for label, model in models.items():
        if model.adapter:
            recipe, _, trained = model.adapter.partition("/")
            for name in (f"data/{recipe}/base", f"data/{recipe}/adapters/{trained}"):
                yield ("models", label, "adapter"), name, True


def _named_files(draft: Draft) -> Iterator[tuple[KeyPath, str, bool]]:
    """Those that the recipe names as such."""
    keys = ("source", "questions", "samples", "base", "verdicts")
    source, questions, samples, base, verdicts = (draft.sections[key] for key in keys)
    if source and source.file:
        splits = ("train", source.test_from)
        for name in dict.fromkeys(source.file.replace("{split}", split) for split in splits):
            yield ("source", "file"), name, False
    for key, other in (questions.transfer if questions else {}).items():
        if other.source.file:
            name = other.source.file.replace("{split}", other.source.test_from)
            yield ("questions", "transfer", key, "source", "file"), name, False
    for name, sampler in samples.samplers.items() if samples else ():
        if isinstance(sampler, ImportSampler):
            yield ("samples", "samplers", name, "import", "file"), sampler.import_.file, False
    if verdicts and verdicts.contamination:
        for at, name in enumerate(verdicts.contamination.files):
            yield ("verdicts", "contamination", "files", at), name, False
    for label, model in (draft.sections["models"] or {}).items():
        # Anything else may be a name of the hub.
        if model.backend in LOCAL_BACKENDS and PurePosixPath(model.name or "").is_absolute():
            yield ("models", label, "name"), str(model.name), True
    if base and base.folder:
        yield ("base", "folder"), base.folder, True


def whole(draft: Draft) -> str:
    """What params.yaml says that a recipe reads: the file or folder outside it that holds all it reads, or
    constraints.txt when it reads none; empty when nothing but the project's folder holds them all."""
    names = [name for _, name, _ in outside_files(draft)]
    common = os.path.commonpath([str(PurePosixPath("/", name)) for name in names or ["constraints.txt"]])[1:]
    return common if common != "data" or names == ["data"] else ""  # which holds the recipe's own artifacts, too


def round_rules(draft: Draft, root: Path) -> Iterator[Found]:
    """What a recipe takes from another one is made there: evolved questions, an adapter to sample from, a base."""
    source, models, base = draft.sections["source"], draft.sections["models"] or {}, draft.sections["base"]
    if base and base.folder and _maker(base.folder, root) == draft.name:
        yield Found(("base", "folder"), "a recipe cannot build on what it makes itself")
    if source and source.evolved:
        other = _other(source.evolved, root)
        if source.evolved == draft.name:
            yield Found(("source", "evolved"), "a recipe cannot draw its questions from itself")
        elif other is None:
            yield Found(("source", "evolved"), f"there is no {RECIPES}/{source.evolved}.yaml")
        elif not other.sections["evolved"]:
            yield Found(("source", "evolved"), f"the recipe {source.evolved} has no `evolved`")
    for label, model in models.items():
        if model.adapter is None:
            continue
        path = ("models", label, "adapter")
        recipe = model.adapter.partition("/")[0]
        trained = _trained(other) if (other := _other(recipe, root)) else ()
        if recipe == draft.name:
            yield Found(path, "a recipe cannot sample from its own adapters; name one of another round")
        elif other is None:
            yield Found(path, f"there is no {RECIPES}/{recipe}.yaml")
        elif model.adapter not in trained:
            yield Found(path, f"the recipe {recipe} trains no {model.adapter}; {allowed(model.adapter, trained)}")
        if model.backend not in LOCAL_BACKENDS or model.name or model.endpoint:
            words = " or ".join(f"`backend: {one}`" for one in LOCAL_BACKENDS)
            yield Found(path, f"an adapter is asked with {words}, and neither name nor endpoint")


def _trained(draft: Draft) -> list[str]:
    """The adapters of a recipe: RECIPE/ARM, or RECIPE/ARM/SEED where an arm is trained with several seeds."""
    adapter, arms = draft.sections["adapter"], draft.tree.keys("mix", "arms")
    seeds = [f"/{seed}" for seed in adapter.seeds] if adapter else []
    return [f"{draft.name}/{arm}{seed}" for arm in arms for seed in seeds or [""]]


def _other(name: str, root: Path) -> Draft | None:
    path = root / RECIPES / f"{name}.yaml"
    return read_draft(path, root) if path.is_file() else None


def recipes_read(draft: Draft, root: Path) -> list[str]:
    """The recipes that a round builds on."""
    source, models, base = draft.sections["source"], draft.sections["models"] or {}, draft.sections["base"]
    named = [model.adapter.partition("/")[0] for model in models.values() if model.adapter]
    named += [source.evolved] if source and source.evolved else []
    named += [maker] if base and base.folder and (maker := _maker(base.folder, root)) else []
    return sorted(set(named))
