"""The part of a recipe that makes the dataset: from records to the training data of every arm."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from lema.recipe.common import Count, Label, Name, Part, PartName, Positive, Prompt, SamplingSpec, Share, Spec


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
    test_from: Literal["test", "validation", "train"] = Field(
        default="test",
        description="Which split of the source the test records are; `train`: it has no other, take the end of train.",
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
