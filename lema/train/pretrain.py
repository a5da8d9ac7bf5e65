"""A tiny student trained from scratch: Llama-shaped, a few million parameters, generated problems, minutes on a laptop.

Its mistakes are those of a model that half understands: slips of arithmetic in sensible steps.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lema.correctors.inject import inject
from lema.errors import RunError
from lema.models.local_weights import available_cores
from lema.models.reference import correct
from lema.models.tokenize import plain_text, silence_transformers
from lema.recipe import part_loader
from lema.recipe.prompt import render, reply
from lema.recipe.sampler_schema import PROGRAM_ERRORS
from lema.recipe.training_schema import PretrainCorrectionsSpec, PretrainSpec
from lema.tasks import Reading, Task
from lema.text.final_answer import strip_answers
from lema.text.render import render_masked, solution_variables
from lema.text.steps import split_steps
from lema.train import Progress, silent
from lema.train.batching import IGNORED, LeftPadding, TokenRow, completion_loss, encode_completion

TOKENIZER_TEXTS = 2000  # problems that the tokenizer is learnt from
END, PAD = "<end>", "<pad>"


@dataclass(frozen=True, slots=True)
class PretrainText:
    """What is read, learnt too if `whole`, and what is written, learnt but for the `masked` characters."""

    prompt: str
    reply: str
    whole: bool
    masked: tuple[tuple[int, int], ...] = ()


def pretrain(spec: PretrainSpec, folder: Path, log: Progress = silent) -> None:
    """Train a student and save it and its tokenizer into an existing folder. The loss is on the whole text: a model
    that starts from nothing has to learn the language of the questions too. Of corrections it is on the reply alone,
    without the incorrect step where the format writes it out: a wrong path is read and not learnt."""
    log(0, spec.steps, "")
    import torch
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    silence_transformers()
    set_seed(spec.seed)
    torch.set_num_threads(available_cores())
    texts = pretrain_texts(spec)
    first = list(itertools.islice(texts, TOKENIZER_TEXTS))
    tokenizer = _train_tokenizer([text.prompt + text.reply for text in first], spec)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=spec.width,
            intermediate_size=spec.width * 4,
            num_hidden_layers=spec.layers,
            num_attention_heads=spec.heads,
            max_position_embeddings=spec.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=spec.lr, betas=(0.9, 0.95), weight_decay=0.1)
    warm = max(1, spec.steps // 20)
    rise = LinearLR(optimizer, 0.05, total_iters=warm)
    fall = CosineAnnealingLR(optimizer, max(1, spec.steps - warm), spec.lr * 0.05)
    schedule = SequentialLR(optimizer, [rise, fall], [warm])
    pad = LeftPadding(tokenizer)
    endless = pretrain_batches(itertools.chain(first, texts), tokenizer, spec)
    for step, batch in enumerate(itertools.islice(endless, spec.steps), start=1):
        rows = {name: value for name, value in pad(batch).items() if name != "logits_to_keep"}
        labels = rows.pop("labels").to(device)
        error = completion_loss(model(**{name: value.to(device) for name, value in rows.items()}), labels)
        error.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        log(step, spec.steps, f"loss {error.item():.3f}" if step % 10 == 0 or step == spec.steps else "")
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pretrain_texts(spec: PretrainSpec) -> Iterator[PretrainText]:
    """Training problems, without end: test questions are never among them."""
    task = part_loader.load_part("tasks", spec.task)
    try:
        records = task.generate(**spec.options)
    except ValueError as error:
        raise RunError(f"base: {spec.task}: {error}") from None
    draw = random.Random(f"corrections {spec.seed}")
    for reading in (task.read(record) for part, record in records if part == "train"):
        steps = strip_answers(split_steps(reading.rationale or ""))
        chosen = spec.corrections if spec.corrections and draw.random() < spec.corrections.share else None
        correction = _corrected_text(reading, steps, task, chosen, draw) if chosen else None
        variables = {"question": reading.text, "steps": steps, "answer": reading.gold}
        prompt = plain_text(render(spec.format, variables))
        yield correction or PretrainText(prompt, reply(spec.format, variables), True)


def _corrected_text(
    reading: Reading, steps: Sequence[str], task: Task, spec: PretrainCorrectionsSpec, draw: random.Random
) -> PretrainText | None:
    """A spoilt rationale and its correction; None where none of the errors can be made, or none is found again."""

    def wrong(text: str) -> bool:
        answer = task.extract(text)
        return answer is not None and task.equal(answer, reading.gold) is False

    kinds = spec.errors or PROGRAM_ERRORS
    spoilt = inject(reading.text, steps, draw.sample(kinds, len(kinds)), draw, wrong)
    if spoilt is None:
        return None
    try:
        found = correct(reading.text, steps, reading.gold, spoilt.steps)
    except ValueError as error:
        raise RunError(f"base: {task.name}: {error}") from None
    if found is None:
        return None
    explanation, at = found.explanation or "", found.incorrect_step
    variables = solution_variables(reading.text, reading.gold, spoilt.steps, at, explanation, found.solution)
    text, masked = render_masked(spec.format, variables)
    return PretrainText(plain_text(render(spec.format, variables)), text, False, masked)


def _train_tokenizer(texts: Sequence[str], spec: PretrainSpec) -> Any:
    """Byte-level BPE whose digits are tokens of their own: arithmetic is then done digit by digit."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocabulary, special_tokens=[PAD, END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=END,
        pad_token=PAD,
        model_max_length=spec.context,
        clean_up_tokenization_spaces=False,
    )


def pretrain_batches(texts: Iterator[PretrainText], tokenizer: Any, spec: PretrainSpec) -> Iterator[list[TokenRow]]:
    """Batches of problems of similar length, in an order drawn by seed; those longer than the context are left out."""
    chance = random.Random(spec.seed)
    while True:
        pool = []
        for text in itertools.islice(texts, spec.batch * 16):
            prompt = tokenizer(text.prompt)["input_ids"]
            completion, labels = encode_completion(tokenizer, text.reply, text.masked)
            ids = [*prompt, *completion, tokenizer.eos_token_id]
            if len(ids) <= spec.context:
                before = prompt if text.whole else [IGNORED] * len(prompt)
                pool.append({"input_ids": ids, "labels": [*before, *labels, tokenizer.eos_token_id]})
        if len(pool) < spec.batch:
            return
        pool.sort(key=lambda row: len(row["input_ids"]))
        batches = [pool[at : at + spec.batch] for at in range(0, len(pool) - spec.batch + 1, spec.batch)]
        chance.shuffle(batches)
        yield from batches
