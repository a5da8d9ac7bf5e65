"""The sections of a recipe that learn and compare: training data of every arm, the student, its adapters, answers and
their scores."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lema.recipe.basic_types import Count, Label, Name, PartName, Positive, Prompt, SamplingSpec, Share, Spec
from lema.recipe.sampler_schema import ProgramError


class Fraction(Spec):
    """A share of what there is."""

    fraction: Share = Field(description="Between 0 and 1.")


class Match(Spec):
    """As much as brings the arm to the size of another arm."""

    match: Name = Field(description="The other arm.")


Size = Literal["all"] | Count | Fraction | Match


class Sized(Spec):
    """Rows of one kind, by number or by tokens, in a format of their own or that of the mix."""

    rows: Size = Field(default="all", description="all, a count, {fraction: share} or {match: arm}.")
    tokens: Count | Match | None = Field(default=None, description="Instead of rows: a count or {match: arm}.")
    format: Prompt | None = Field(default=None, description="Format of these rows, in place of the mix's.")

    @model_validator(mode="after")
    def _one_size(self) -> "Sized":
        if self.tokens is not None and self.rows != "all":
            raise ValueError("is sized by rows or by tokens, not by both")
        return self

    @property
    def match(self) -> str | None:
        """The arm that these rows are sized by."""
        return next((size.match for size in (self.rows, self.tokens) if isinstance(size, Match)), None)


class CotRows(Sized):
    """Chain-of-thought rows: gold rationales, right paths of samplers, corrected solutions."""

    rationales: bool = Field(default=True, description="The gold rationales of the training questions.")
    samplers: tuple[Label, ...] = Field(default=(), description="Samplers whose right paths are taken.")
    corrected: bool = Field(default=False, description="The corrected solutions in accepted corrections, in full.")
    per_question: Positive | None = Field(default=None, description="Most rows a question: the gold rationale first.")
    repeat: bool = Field(default=False, description="Where rows are too few, all again, in another order each time.")

    @model_validator(mode="after")
    def _something_to_fill(self) -> "CotRows":
        if self.repeat and self.tokens is None and not isinstance(self.rows, int | Match):
            raise ValueError("`repeat` needs a size to come up to: rows or tokens, a count or {match: arm}")
        return self


class CorrectionRows(Sized):
    """Rows made of accepted corrections; what they say of each is the format's choice."""

    samplers: tuple[Label, ...] | None = Field(default=None, description="Whose mistakes; of all when absent.")
    masked: bool = Field(default=False, description="No loss on the incorrect step that the format writes (`wrong`).")


class Arm(Spec):
    """What one arm of the comparison learns from."""

    cot: CotRows | None = Field(default=None, description="Chain-of-thought rows.")
    corrections: CorrectionRows | None = Field(default=None, description="Correction rows.")

    @model_validator(mode="after")
    def _something(self) -> "Arm":
        if self.cot is None and self.corrections is None:
            raise ValueError("needs cot, corrections or both")
        return self


class MixSpec(Spec):
    """Training data of every arm."""

    arms: dict[Name, Arm] = Field(min_length=1, description="By name; each needs a line in params.yaml.")
    cot: Prompt = Field(description="Format of CoT rows.")
    correction: Prompt = Field(
        description="Format of correction rows. It reads question, path and steps; it writes these and incorrect_step, "
        "explanation, solution (untouched steps as `...`), full, before, wrong, after, answer and the gold rationale."
    )
    tokens: Literal["completion", "example"] = Field(
        default="completion", description="What arms sized by tokens count: completions, which have the loss, or all."
    )
    seed: int = Field(default=0, description="Which rows when not all, and their order.")


class Origin(Spec):
    """Something that the dataset builds on."""

    name: str = Field(description="What it is called.")
    license: str = Field(description="Its licence.")
    url: str | None = Field(default=None, description="Where it is.")


class ExportSpec(Spec):
    """The dataset as files for other trainers and for the hub, with a card."""

    title: str | None = Field(default=None, description="Of the card; the recipe's name when absent.")
    license: str | None = Field(default=None, description="Of the dataset, in the hub's spelling: mit, cc-by-4.0.")
    sources: tuple[Origin, ...] = Field(default=(), description="What the dataset builds on, for the card.")


class PretrainCorrectionsSpec(Spec):
    """Problems of the pretraining that come as corrections: a program spoils the gold rationale, `reference` corrects
    it. The wrong path is read, never learnt."""

    share: Share = Field(description="Of the problems; one whose rationale cannot be spoilt stays as it is.")
    format: Prompt = Field(description="As `mix.correction`: it reads question, path and steps, and writes the rest.")
    errors: tuple[ProgramError, ...] = Field(default=(), description="Kinds of error to draw from; all when empty.")


class PretrainSpec(Spec):
    """A tiny Llama-shaped student trained from scratch on generated problems, for experiments in minutes."""

    task: PartName = Field(default="word_problems", description="A task that makes its own questions.")
    options: dict[str, Any] = Field(default={}, description="Options of the task's generator.")
    format: Prompt = Field(description="`user` is what it reads, `assistant` what it learns to write.")
    corrections: PretrainCorrectionsSpec | None = Field(default=None, description="A share of them as corrections.")
    width: Positive = Field(default=192, description="Hidden size.")
    layers: Positive = Field(default=4, description="Transformer layers.")
    heads: Positive = Field(default=4, description="Attention heads; they share the width.")
    vocabulary: Positive = Field(default=480, description="Tokens of its byte-level BPE; digits are single tokens.")
    context: Positive = Field(default=512, description="Longest sequence, in tokens.")
    steps: Positive = Field(description="Optimizer steps.")
    batch: Positive = Field(default=32, description="Problems a step.")
    lr: float = Field(default=3e-3, gt=0, description="Highest learning rate.")
    seed: int = Field(default=0, description="Of weights and order.")


class BaseSpec(Spec):
    """The student before fine-tuning: exactly one of `embedded`, `pretrain`, `hub` and `folder`."""

    one_of: ClassVar[tuple[str, ...]] = ("embedded", "pretrain", "hub", "folder")

    embedded: Literal["smollm2-135m-instruct"] | None = Field(default=None, description="Comes with `make setup`.")
    pretrain: PretrainSpec | None = Field(default=None, description="Train one from scratch.")
    hub: str | None = Field(default=None, description="A model on the Hugging Face hub.")
    revision: str | None = Field(default=None, description="With hub: the commit; pin it.")
    folder: str | None = Field(default=None, description="A model saved by transformers.")
    chat: bool = Field(default=True, description="False: no chat template, plain text in and out.")


class ChooseSpec(Spec):
    """Which checkpoint is kept: the one with the least loss on examples that are held out. Test questions have no
    part in it."""

    every: Positive = Field(description="Optimizer steps between checkpoints; the last step is one too.")
    share: float = Field(default=0.05, gt=0, lt=1, description="Of the questions, whose CoT examples are held out.")


class AdapterSpec(Spec):
    """Fine-tuning of the base, once an arm."""

    one_of: ClassVar[tuple[str, ...]] = ("epochs", "steps")
    method: Literal["lora", "qlora", "full"] = Field(default="lora", description="qlora: 4-bit weights; full: all.")
    rank: Positive = Field(default=16, description="Of LoRA: rank of the update.")
    alpha: float = Field(default=32.0, gt=0, description="Of LoRA: scale of the update, times 1 / rank.")
    dropout: Share = Field(default=0.0, description="Of LoRA: share of what the update reads.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(default="all-linear", description="Of LoRA: module names.")
    loss: Literal["completion", "all"] = Field(
        default="completion", description="Tokens learnt; all: the prompt's too."
    )
    optimizer: Literal["adamw", "paged_adamw_32bit"] = Field(
        default="adamw", description="paged_adamw_32bit: of bitsandbytes, for GPUs that are nearly full."
    )
    lr: float = Field(default=2e-4, gt=0, description="Highest learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(default="cosine", description="After the warm-up.")
    warmup: Share = Field(default=0.0, description="Share of the steps.")
    epochs: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Passes over the examples.")
    steps: Positive | None = Field(default=None, description="Optimizer steps, instead of epochs.")
    batch: Positive = Field(default=8, description="Examples a device and step.")
    accumulate: Positive = Field(default=1, description="Steps whose gradients are summed for one optimizer step.")
    max_length: Positive = Field(default=1024, description="Tokens; longer examples are left out and reported.")
    weight_decay: float = Field(default=0.0, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Longer gradients are cut to it.")
    beta2: Share = Field(default=0.999, description="Of AdamW.")
    group_by_length: bool = Field(default=True, description="Batches of examples of like length.")
    gradient_checkpointing: bool = Field(default=False, description="Less memory, more time.")
    save_every: Positive = Field(default=50, description="Optimizer steps between checkpoints to resume from.")
    choose: ChooseSpec | None = Field(default=None, description="A checkpoint to keep; the last one when absent.")
    seed: int = Field(default=0, description="Of weights, dropout and order.")
    seeds: tuple[int, ...] = Field(default=(), description="Instead of seed: every arm is trained once with each.")

    @property
    def trainings(self) -> tuple["AdapterSpec", ...]:
        """The settings of every single training, one a seed."""
        return tuple(self.model_copy(update={"seed": seed, "seeds": ()}) for seed in self.seeds or (self.seed,))

    @model_validator(mode="after")
    def _seeds_differ(self) -> "AdapterSpec":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: the same seed twice would train the same adapter twice")
        if self.seeds and "seed" in self.model_fields_set:
            raise ValueError("needs one of seed, seeds")
        return self


class VotesSpec(Spec):
    """Several sampled answers a question, of which the commonest counts: self-consistency, maj@k."""

    paths: Positive = Field(description="Answers a question: k of maj@k.")
    temperature: float = Field(default=0.7, gt=0, description="Of the draw.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Share of the probability that is drawn from.")
    top_k: Positive | None = Field(default=None, description="Draw from the likeliest tokens only.")
    seed: int = Field(default=0, description="Of the draw; every answer has its own.")


class AnswersSpec(SamplingSpec):
    """The test questions and those of transfer sets, asked of the base and of every arm."""

    prompt: Prompt = Field(description="Usually the format of the CoT rows.")
    dev: bool = Field(default=False, description="Ask the dev questions too; they are scored apart.")
    votes: VotesSpec | None = Field(default=None, description="Beside the one answer, several that vote (maj@k).")


class ProbeSpec(Spec):
    """Perplexity of right and wrong paths under every local model, as in figure 11 of the paper."""

    questions: Count = Field(default=0, description="Test questions that the base gets wrong, at most; 0 is none.")
    seed: int = Field(default=0, description="Which ones.")


class ScoresSpec(Spec):
    """Accuracy with intervals, and every pair of models compared on the same questions."""

    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the intervals.")
    resamples: Positive = Field(default=10_000, description="Bootstrap resamples for paired differences.")
    seed: int = Field(default=0, description="Of the resamples.")


class ReportSpec(Spec):
    """One HTML page and one Markdown file."""

    title: str | None = Field(default=None, description="Of the page; the recipe's name when absent.")
    examples: Count = Field(default=8, description="Corrections to read.")
