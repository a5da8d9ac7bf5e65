"""Where paths come from, right and wrong ones: models, files, and mistakes that are made on purpose."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from lema.recipe.basic_types import AskSpec, Label, Positive, Spec

# Kinds of error that a program can make in a path, and those for which it takes a model; the words are those of the
# `reference` corrector where it knows the kind (after the taxonomy of arXiv 2503.17439).
ProgramError = Literal["arithmetic slip", "wrong operation", "wrong operand", "missing step", "unit error"]
ModelError = Literal["misread question", "counting error", "contradicted step", "wrong formula", "unsupported number"]
ErrorType = Literal[ProgramError, ModelError]
PROGRAM_ERRORS: tuple[ErrorType, ...] = get_args(ProgramError)
ALL_ERRORS: tuple[ErrorType, ...] = (*PROGRAM_ERRORS, *get_args(ModelError))


class ModelSampler(AskSpec):
    """A sampler that asks a model."""

    paths: Positive = Field(default=1, description="Paths a question.")


class ImportSpec(Spec):
    """Existing paths in a file; a row belongs to the question with the same text."""

    file: str = Field(description="A .jsonl, .csv or .parquet file.")
    question: str = Field(default="question", description="Field with the question's text.")
    path: str = Field(default="path", description="Field with the path: a text, or a list of steps.")


class ImportSampler(Spec):
    """A sampler that takes existing paths."""

    import_: ImportSpec = Field(alias="import", description="Where the paths are.")


class InjectSpec(Spec):
    """A mistake in a right path, of a kind that is drawn by seed."""

    of: Label | None = Field(default=None, description="Sampler whose right paths are spoilt; else gold rationales.")
    errors: tuple[ErrorType, ...] = Field(default=(), description="Kinds of error to draw from; all when empty.")


class InjectSampler(Spec):
    """A sampler that spoils right paths by program: one step is changed, and what follows from it follows."""

    inject: InjectSpec = Field(description="Which paths, and how.")
    paths: Positive = Field(default=1, description="Paths a question.")
    seed: int = Field(default=0, description="Of the draw of kinds and steps.")

    @model_validator(mode="after")
    def _a_program_can(self) -> "InjectSampler":
        if beyond := [kind for kind in self.inject.errors if kind not in PROGRAM_ERRORS]:
            able = ", ".join(PROGRAM_ERRORS)
            raise ValueError(f"only a model can make the error {beyond[0]!r}; name one, or choose from: {able}")
        return self


class TypedSampler(ModelSampler):
    """A sampler that has right paths spoilt by a model, told the kind of error (arXiv 2503.17439)."""

    inject: InjectSpec = Field(description="Which paths, and how.")


class BranchSpec(Spec):
    """Where another sampler's path is left."""

    of: Label = Field(description="The sampler whose paths are begun with.")
    outcome: Literal["correct", "any"] = Field(default="correct", description="Which of them.")


class BranchSampler(ModelSampler):
    """A sampler that keeps the first steps of a path, as many as the seed says, and has a model go on from there,
    usually at a high temperature (arXiv 2407.00782)."""

    branch: BranchSpec = Field(description="Which paths are begun with.")


def _kind(raw: Any) -> str:
    names = set(raw) if isinstance(raw, dict) else {name.rstrip("_") for name in getattr(type(raw), "model_fields", ())}
    if "inject" in names:
        return "typed" if names & {"model", "prompt"} else "inject"
    return next((name for name in ("import", "branch") if name in names), "model")


Sampler = Annotated[
    Annotated[ModelSampler, Tag("model")]
    | Annotated[ImportSampler, Tag("import")]
    | Annotated[InjectSampler, Tag("inject")]
    | Annotated[TypedSampler, Tag("typed")]
    | Annotated[BranchSampler, Tag("branch")],
    Discriminator(_kind),
]


class WantSpec(Spec):
    """How many wrong paths are enough: what comes after them is not asked for."""

    per_question: Positive | None = Field(default=None, description="Of a question; `paths` are then the most.")
    in_all: Positive | None = Field(default=None, description="In all; first paths of all questions come first.")
    samplers: tuple[Label, ...] | None = Field(default=None, description="Whose count, and who stops; all when absent.")
    seed: int = Field(default=0, description="Which questions first, and for each which sampler.")

    @model_validator(mode="after")
    def _a_number(self) -> "WantSpec":
        if self.per_question is None and self.in_all is None:
            raise ValueError("needs per_question, in_all or both")
        return self

    def counts(self, sampler: str) -> bool:
        """Whether a sampler's wrong paths count, and it stops when there are enough."""
        return self.samplers is None or sampler in self.samplers


class SamplesSpec(Spec):
    """Paths for the training questions, from all samplers at once."""

    samplers: dict[Label, Sampler] = Field(min_length=1, description="By name, which is part of every path's id.")
    want: WantSpec | None = Field(default=None, description="When there are enough wrong paths; never when absent.")

    @property
    def derived(self) -> bool:
        """Whether some paths are made of others, or of gold rationales."""
        return any(not (isinstance(one, ImportSampler) or type(one) is ModelSampler) for one in self.samplers.values())
