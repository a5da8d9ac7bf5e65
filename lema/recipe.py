"""The recipe language: one key an artifact.

Reading files, `extends` and the positions of errors are in `lema.plan`; this module is only the shape.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, model_validator

# DVC accepts these in the names of stages and of the keys it tracks; a run is named `<recipe>-<arm>`.
NAME = re.compile(r"[A-Za-z0-9_-]+")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
# Models, endpoints and samplers name no stage, so `gpt-3.5` is a name too.
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
# `gsm8k` is ours, `my_pkg.my_mod:my_task` is the user's (`lema.component`).
PartName = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Spec(BaseModel):
    """Frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)


class Prompt(Spec):
    """A prompt: templates in Jinja's sandbox. With `demonstrations`, `user` and `assistant` are rendered once for
    each of them before the real turn (few-shot); as a training format, `user` is the input and `assistant` the
    output. In a recipe: the name of a file in recipes/prompts, or these keys inline."""

    system: str | None = Field(default=None, description="System message; none when absent.")
    user: str = Field(description="Template of the user's turn.")
    assistant: str | None = Field(
        default=None, description="Template of the reply: for demonstrations and training formats."
    )
    demonstrations: tuple[dict[str, Any], ...] = Field(
        default=(), description="Variables of worked examples, one mapping each."
    )

    @model_validator(mode="after")
    def _demonstrations_need_a_reply(self) -> "Prompt":
        if self.demonstrations and self.assistant is None:
            raise ValueError("demonstrations need an `assistant` template: what the reply to each of them is")
        return self


class ModelSpec(Spec):
    """A model by name. What is here decides its replies; its address and rates are in params.yaml."""

    backend: PartName = Field(description="How it is called: `lema ls backends`, or my_pkg.my_mod:my_backend.")
    name: str | None = Field(default=None, description="What the endpoint or hub calls it.")
    revision: str | None = Field(default=None, description="Snapshot or commit; part of the model's identity.")
    endpoint: Label | None = Field(default=None, description="Which of params.yaml's run.endpoints serves it.")
    chat: bool = Field(default=True, description="False for models that continue plain text.")
    options: dict[str, Any] = Field(default={}, description="Options of the backend.")


class SourceSpec(Spec):
    """Where raw records come from: exactly one of `generator`, `hub` and `file`."""

    generator: PartName | None = Field(
        default=None, description="A task that makes its own questions: `lema ls tasks`."
    )
    hub: str | None = Field(default=None, description="A data set on the Hugging Face hub.")
    config: str | None = Field(default=None, description="With hub: the configuration's name.")
    revision: str | None = Field(default=None, description="With hub: the commit; pin it.")
    file: str | None = Field(
        default=None, description="A .jsonl, .csv or .parquet file; with {split} in it, one a split."
    )
    train: Count | None = Field(default=None, description="Records of the train split; all when absent.")
    test: Count | None = Field(default=None, description="Records of the test split; all when absent.")
    test_from: Literal["test", "train"] = Field(
        default="test",
        description="`train`: the source has no test split, take the test records from its end of train.",
    )
    options: dict[str, Any] = Field(default={}, description="Options of the generator.")

    @model_validator(mode="after")
    def _one_origin(self) -> "SourceSpec":
        if sum(origin is not None for origin in (self.generator, self.hub, self.file)) != 1:
            raise ValueError("needs exactly one of generator, hub, file")
        return self


class QuestionsSpec(Spec):
    """Which questions are asked. Subsets are nested: ten more questions are the old ones and ten new."""

    task: PartName = Field(description="How to read and grade them: `lema ls tasks`, or my_pkg.my_mod:my_task.")
    train: Count | None = Field(default=None, description="Training questions; all when absent.")
    test: Count | None = Field(default=None, description="Test questions; all when absent.")
    seed: int = Field(default=0, description="Which ones.")


class PretrainSpec(Spec):
    """A tiny Llama-shaped student trained from scratch on generated problems, for experiments in minutes."""

    task: PartName = Field(default="word_problems", description="A task that makes its own questions.")
    options: dict[str, Any] = Field(default={}, description="Options of the task's generator.")
    format: Prompt = Field(description="`user` is what it reads, `assistant` what it learns to write.")
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

    embedded: Literal["smollm2-135m-instruct"] | None = Field(default=None, description="Comes with `make setup`.")
    pretrain: PretrainSpec | None = Field(default=None, description="Train one from scratch.")
    hub: str | None = Field(default=None, description="A model on the Hugging Face hub.")
    revision: str | None = Field(default=None, description="With hub: the commit; pin it.")
    folder: str | None = Field(default=None, description="A model saved by transformers.")
    chat: bool = Field(default=True, description="False: no chat template, plain text in and out.")

    @model_validator(mode="after")
    def _one_origin(self) -> "BaseSpec":
        if sum(origin is not None for origin in (self.embedded, self.pretrain, self.hub, self.folder)) != 1:
            raise ValueError("needs exactly one of embedded, pretrain, hub, folder")
        return self


class SamplingSpec(Spec):
    """How a model is asked."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Share of the probability that is drawn from.")
    top_k: Positive | None = Field(default=None, description="Draw from the likeliest tokens only.")
    max_tokens: Positive = Field(default=512, description="Longest reply.")
    stop: tuple[str, ...] = Field(default=(), description="Strings that end a reply.")
    seed: int = Field(default=0, description="Of the draw; every path has its own.")


class ModelSampler(SamplingSpec):
    """A sampler that asks a model."""

    model: Label = Field(description="A name under `models`, or `base`: the student itself.")
    prompt: Prompt = Field(description="A file in recipes/prompts, or a prompt inline.")
    paths: Positive = Field(default=1, description="Paths a question.")


class ImportSpec(Spec):
    """Existing paths in a file; a row belongs to the question with the same text."""

    file: str = Field(description="A .jsonl, .csv or .parquet file.")
    question: str = Field(default="question", description="Field with the question's text.")
    path: str = Field(default="path", description="Field with the path: a text, or a list of steps.")


class ImportSampler(Spec):
    """A sampler that takes existing paths."""

    import_: ImportSpec = Field(alias="import", description="Where the paths are.")


Sampler = Annotated[
    Annotated[ModelSampler, Tag("model")] | Annotated[ImportSampler, Tag("import")],
    Discriminator(
        lambda raw: "import" if (isinstance(raw, dict) and "import" in raw) or hasattr(raw, "import_") else "model"
    ),
]


class SamplesSpec(Spec):
    """Paths for the training questions, from all samplers at once."""

    samplers: dict[Label, Sampler] = Field(min_length=1, description="By name, which is part of every path's id.")


class GradesSpec(Spec):
    """Grading is the task's; there is nothing to set."""


class CorrectionsSpec(SamplingSpec):
    """The corrector: it reads a question and a wrong path, and finds, explains and mends the mistake."""

    model: Label = Field(description="A name under `models`, or `base`.")
    prompt: Prompt = Field(description="A file in recipes/prompts, or a prompt inline.")
    samplers: tuple[Label, ...] | None = Field(default=None, description="Whose wrong paths; all when absent.")
    tries: Positive = Field(default=1, description="Corrections asked for, a wrong path.")
    hint: Literal["none", "answer", "rationale"] = Field(
        default="none", description="What of the gold solution the corrector is shown; the paper shows none."
    )


class Part(Spec):
    """A named part with its options. In a recipe: `name`, or `name: {option: value}`."""

    use: PartName
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            return {"use": raw}
        if isinstance(raw, dict) and len(raw) == 1 and "use" not in raw:
            ((use, options),) = raw.items()
            return {"use": use, "options": {} if options is None else options}
        if not isinstance(raw, dict) or "use" not in raw:
            raise ValueError("needs a name, or one name with its options: `name: {option: value}`")
        return raw


class VerdictsSpec(Spec):
    """Filters, in order; each judges every correction."""

    filters: tuple[Part, ...] = Field(description="`lema ls filters`, or my_pkg.my_mod:my_filter.")


class Fraction(Spec):
    """A share of what there is."""

    fraction: Share = Field(description="Between 0 and 1.")


class Match(Spec):
    """As many rows as bring the arm to the size of another arm."""

    match: Name = Field(description="The other arm.")


Size = Literal["all"] | Count | Fraction | Match


class CotRows(Spec):
    """Chain-of-thought rows: gold rationales, right paths of samplers, or both."""

    rationales: bool = Field(default=True, description="The gold rationales of the training questions.")
    samplers: tuple[Label, ...] = Field(default=(), description="Samplers whose right paths are taken.")
    rows: Size = Field(default="all", description="all, a count, {fraction: share} or {match: arm}.")


class CorrectionRows(Spec):
    """Rows made of accepted corrections."""

    rows: Size = Field(default="all", description="all, a count, {fraction: share} or {match: arm}.")
    ellipsis: bool = Field(
        default=True, description="Untouched steps before the incorrect one become `...`, as in the paper."
    )


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
    correction: Prompt = Field(description="Format of correction rows.")
    seed: int = Field(default=0, description="Which rows when not all, and their order.")


class AdapterSpec(Spec):
    """LoRA fine-tuning of the base, one adapter an arm."""

    rank: Positive = Field(default=16, description="Rank of the update.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the update, times 1 / rank.")
    dropout: Share = Field(default=0.0, description="Of what the update reads.")
    targets: Literal["all-linear"] | tuple[str, ...] = Field(
        default="all-linear", description="Layers that learn: all-linear, or names of modules."
    )
    lr: float = Field(default=2e-4, gt=0, description="Highest learning rate.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="cosine", description="Of the learning rate, after the warm-up."
    )
    warmup: Share = Field(default=0.0, description="Share of the steps.")
    epochs: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Passes over the examples.")
    steps: Positive | None = Field(default=None, description="Optimizer steps, instead of epochs.")
    batch: Positive = Field(default=8, description="Examples a device and step.")
    accumulate: Positive = Field(default=1, description="Steps whose gradients are summed for one optimizer step.")
    max_length: Positive = Field(
        default=1024, description="Tokens; longer examples are left out and reported, never cut."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="Of AdamW.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Longer gradients are cut to it.")
    beta2: Share = Field(default=0.999, description="Of AdamW.")
    group_by_length: bool = Field(default=True, description="Batches of examples of like length.")
    gradient_checkpointing: bool = Field(default=False, description="Less memory, more time.")
    save_every: Positive = Field(default=50, description="Optimizer steps between checkpoints to resume from.")
    seed: int = Field(default=0, description="Of weights, dropout and order.")

    @model_validator(mode="after")
    def _one_length(self) -> "AdapterSpec":
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("needs exactly one of epochs, steps")
        return self


class AnswersSpec(SamplingSpec):
    """The test questions, asked of the base and of every arm."""

    prompt: Prompt = Field(description="Usually the format of the CoT rows.")


class ScoresSpec(Spec):
    """Accuracy with intervals, and every pair of models compared on the same questions."""

    confidence: float = Field(default=0.95, gt=0, lt=1, description="Of the intervals.")
    resamples: Positive = Field(default=10_000, description="Bootstrap resamples for paired differences.")
    seed: int = Field(default=0, description="Of the resamples.")


class ReportSpec(Spec):
    """One HTML page and one Markdown file."""

    title: str | None = Field(default=None, description="Of the page; the recipe's name when absent.")
    examples: Count = Field(default=8, description="Corrections to read.")


class Recipe(Spec):
    """A recipe. Keys are artifacts, in the order in which they are made."""

    description: str | None = Field(default=None, description="One line, for the report.")
    models: dict[Label, ModelSpec] = Field(default={}, description="Models by name, for samples and corrections.")
    source: SourceSpec
    questions: QuestionsSpec
    base: BaseSpec
    samples: SamplesSpec
    grades: GradesSpec = GradesSpec()
    corrections: CorrectionsSpec
    verdicts: VerdictsSpec
    mix: MixSpec
    adapter: AdapterSpec
    answers: AnswersSpec
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
