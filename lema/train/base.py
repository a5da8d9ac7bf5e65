"""The base: making the artifact, and opening it for sampling and training."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lema.errors import RunError
from lema.recipe.training_schema import BaseSpec
from lema.train import Progress, embedded, silent


@dataclass(frozen=True, slots=True)
class Base:
    """The student before fine-tuning. `location` is what `from_pretrained` takes, a folder or a hub name; it stands
    in no artifact. `identity` is the hash of local weights, or name and commit on the hub."""

    identity: str
    chat: bool
    location: str
    revision: str | None = None


def write_base(spec: BaseSpec, folder: Path, home: Path, log: Progress = silent) -> None:
    """Write `base.json` into an existing folder and, for a student trained here, its weights and tokenizer.

    Raises RunError when the model cannot be had.
    """
    facts: dict[str, Any] = {"chat": spec.chat}
    if spec.embedded:
        weights = embedded.ensure_embedded(home, log)
        facts |= {"kind": "embedded", "name": spec.embedded, "identity": weights_digest(weights)}
    elif spec.pretrain:
        from lema.train.pretrain import pretrain

        pretrain(spec.pretrain, folder, log)
        facts |= {"kind": "pretrain", "identity": weights_digest(folder)}
    elif spec.folder:
        facts |= {"kind": "folder", "name": spec.folder, "identity": weights_digest(Path(spec.folder))}
    else:
        commit = _hub_commit(str(spec.hub), spec.revision)
        facts |= {"kind": "hub", "name": spec.hub, "revision": commit, "identity": f"{spec.hub}@{commit}"}
    (folder / "base.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def open_base(folder: Path, home: Path) -> Base:
    """The base that `write_base` wrote; fetches the embedded model when this machine has not got it yet.

    Raises RunError when the weights are not those that the artifact was made with.
    """
    facts = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    if facts["kind"] == "hub":
        return Base(facts["identity"], facts["chat"], facts["name"], facts["revision"])
    if facts["kind"] == "embedded":
        location = embedded.ensure_embedded(home)
    else:
        location = folder if facts["kind"] == "pretrain" else Path(facts["name"])
    if (found := weights_digest(location)) != facts["identity"]:
        raise RunError(
            f"the weights of the base ({facts.get('name', 'trained here')}) are not those it was made with: {found} "
            f"instead of {facts['identity']}. `dvc repro --force --single-item` its base stage, or fetch the right ones"
        )
    return Base(facts["identity"], facts["chat"], str(location))


def weights_digest(folder: Path) -> str:
    """SHA-256 over what decides the replies of a local model: weights, configuration and tokenizer."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise RunError(f"base: {folder.name} holds no .safetensors; save the model with transformers' save_pretrained")
    others = [folder / name for name in ("config.json", "tokenizer.json", "tokenizer_config.json")]
    digest = hashlib.sha256()
    for path in [*weights, *(path for path in others if path.is_file())]:
        digest.update(f"{path.name} {_file_digest(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _file_digest(path: Path) -> str:
    """Of a JSON file, the content without the version of transformers that wrote it: saving a model again with
    another version changes no reply."""
    with path.open("rb") as file:
        if path.suffix != ".json":
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = json.load(file)
    content.pop("transformers_version", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit behind a branch or tag, so that the same recipe means the same weights next year."""
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        found = HfApi().model_info(name, revision=revision).sha
    except Exception as error:  # whatever the transport of the hub's client raises
        raise RunError(
            f"base: the hub does not tell the commit of {name}: {type(error).__name__}. "
            "Without the hub, name a full commit in base.revision, or a folder in base.folder"
        ) from None
    if found is None:
        raise RunError(f"base: the hub has no commit of {name}, revision {revision or 'main'}")
    return found
