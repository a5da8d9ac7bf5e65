"""The recipe language: `Recipe`, at the end of this module, has one key an artifact.

Here are the sections that make corrections, from records to verdicts and new questions. Where paths come from is in
`sampler_schema`; training data, training and comparing in `training_schema`; names, numbers, prompts and the sampling
of replies, of which all of these are made, in `basic_types`. `load` reads files, `messages` words what is wrong.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from lema.recipe.basic_types import AskSpec, Count, Label, Name, Part, PartName, Positive, Share, Spec
from lema.recipe.sampler_schema import SamplesSpec
from lema.recipe.training_schema import (
    AdapterSpec,
    AnswersSpec,
    BaseSpec,
    ExportSpec,
    MixSpec,
    ProbeSpec,
    ReportSpec,
    ScoresSpec,
)

Hint = Literal["none", "answer", "rationale"]
OptionalField = Literal["incorrect_step", "explanation"]  # of a correction


class ModelSpec(Spec):
    """A model by name. What is here decides its replies; its address and rates are in params.yaml."""

    backend: PartName = Field(description="How it is called: `lema ls backends`, or my_pkg.my_mod:my_backend.")
    name: str | None = Field(default=None, description="What the endpoint or hub calls it.")
    revision: str | None = Field(default=None, description="Snapshot or commit; part of the model's identity.")
    endpoint: Label | None = Field(default=None, description="Which of params.yaml's run.endpoints serves it.")
    chat: bool = Field(default=True, description="False for models that continue plain text.")
    adapter: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]+/[A-Za-z0-9_-]+(/-?[0-9]+)?$",
        description="With transformers or vllm, for samplers: an arm of another recipe, RECIPE/ARM or RECIPE/ARM/SEED.",
    )
    options: dict[str, Any] = Field(default={}, description="Options of the backend.")


class TestSource(Spec):
    """Where raw records come from: exactly one of `generator`, `hub` and `file`."""

    one_of: ClassVar[tuple[str, ...]] = ("generator", "hub", "file")

    generator: PartName | None = Field(default=None, description="A task that makes questions: `lema ls tasks`.")
    hub: str | None = Field(default=None, description="A data set on the Hugging Face hub.")
    config: str | None = Field(default=None, description="With hub: the configuration's name.")
    revision: str | None = Field(default=None, description="With hub: the commit; pin it.")
    file: str | None = Field(default=None, description="A .jsonl, .csv or .parquet file; with {split}, one a split.")
    test: Count | None = Field(default=None, description="Records of the test split; all when absent.")
    test_from: Literal["test", "validation", "train"] = Field(
        default="test", description="Which split of the source; `train`: there is no other, take its end."
    )
    options: dict[str, Any] = Field(default={}, description="Options of the generator.")


class SourceSpec(TestSource):
    """Where raw records come from: exactly one of `generator`, `hub`, `file` and `evolved`."""

    one_of: ClassVar[tuple[str, ...]] = (*TestSource.one_of, "evolved")
    evolved: Name | None = Field(default=None, description="A recipe: its new questions to learn from, its test set.")
    originals: bool = Field(default=False, description="With evolved: that recipe's own training records too.")
    train: Count | None = Field(default=None, description="Records of the train split; all when absent.")

    def artifacts(self, split: str) -> tuple[str, ...]:
        """The files of another recipe that a split is read from, with `evolved`."""
        own, new = (f"data/{self.evolved}/{name}.parquet" for name in ("source", "evolved"))
        return (own,) if split == "test" else (own, new) if self.originals else (new,)

    @model_validator(mode="after")
    def _a_round(self) -> "SourceSpec":
        if self.originals and self.evolved is None:
            raise ValueError("originals are those of an evolved recipe: name it in `evolved`")
        if self.evolved is not None and self.test_from == "train":
            raise ValueError("the test records are those of the recipe in `evolved`, not from `test_from: train`")
        return self


class TransferSpec(Spec):
    """A further test set, answered by the same models from the same prompt: how far does what was learnt reach?"""

    source: TestSource = Field(description="As the recipe's own; a file without {split} holds test records only.")
    task: PartName | None = Field(default=None, description="How to read and grade them; as the others when absent.")
    test: Count | None = Field(default=None, description="Questions; all when absent.")


class QuestionsSpec(Spec):
    """Which questions are asked. Subsets are nested: ten more questions are the old ones and ten new."""

    task: PartName = Field(description="How to read and grade them: `lema ls tasks`, or my_pkg.my_mod:my_task.")
    train: Count | None = Field(default=None, description="Training questions; all but `dev` when absent.")
    dev: Count = Field(default=0, description="Questions held out of the training records, to choose settings on.")
    test: Count | None = Field(default=None, description="Test questions; all when absent.")
    transfer: dict[Name, TransferSpec] = Field(default={}, description="Further test sets by name: another benchmark.")
    seed: int = Field(default=0, description="Which ones.")

    @property
    def tasks(self) -> dict[str, str]:
        """The task of every split."""
        others = {name: one.task or self.task for name, one in self.transfer.items()}
        return {"train": self.task, "dev": self.task, "test": self.task, **others}


class LocationsSpec(AskSpec):
    """The locator: it reads a question and a wrong path, and names the first incorrect step. For correctors that can
    mend a mistake but not find it (arXiv 2311.08516): their prompt may then use `incorrect_step`."""

    samplers: tuple[Label, ...] | None = Field(default=None, description="Whose wrong paths; all when absent.")
    hint: Hint = Field(default="none", description="What of the gold solution the locator is shown.")
    known: bool = Field(default=True, description="Injected mistakes are where they were put; nobody is asked.")


class CorrectionsSpec(AskSpec):
    """The corrector: it reads a question and a wrong path, and finds, explains and mends the mistake."""

    samplers: tuple[Label, ...] | None = Field(default=None, description="Whose wrong paths; all when absent.")
    tries: Positive = Field(default=1, description="Corrections asked for, a wrong path.")
    hint: Hint = Field(default="none", description="What of the gold solution the corrector is shown; LEMA: none.")
    format: Literal["text", "json"] = Field(default="text", description="Labelled lines, or an object of these fields.")
    without: tuple[OptionalField, ...] = Field(default=(), description="Fields that the replies do without.")
    want: Positive | None = Field(default=None, description="Accepted ones that are enough, of paths drawn by seed.")
    max_candidates: Positive | None = Field(default=None, description="With want: the most that are asked for.")


class ContaminationSpec(Spec):
    """Training questions and corrections that hold n-grams of test questions are not learnt from."""

    ngram: Positive = Field(default=13, description="Words in a row; shorter test questions must be the same.")
    limit: Share = Field(default=0.5, description="Share of a test question's n-grams that may be there.")
    files: tuple[str, ...] = Field(default=(), description="More test questions: .jsonl, .csv or .parquet files.")
    field: str = Field(default="question", description="Field with a question's text in `files`.")


class VerdictsSpec(Spec):
    """Filters, in order; each judges every correction."""

    filters: tuple[Part, ...] = Field(description="`lema ls filters`, or my_pkg.my_mod:my_filter.")
    contamination: ContaminationSpec | Literal[False] = Field(
        default=ContaminationSpec(), description="The last filter, and of training questions; false turns both off."
    )

    @property
    def parts(self) -> tuple[Part, ...]:
        """All filters that judge: those that are listed, and `contamination` unless it is off."""
        if self.contamination is False:
            return self.filters
        return (*self.filters, Part.model_validate({"contamination": self.contamination.model_dump()}))


class EvolvedSpec(Spec):
    """New questions like those that were corrected (LEMA, section 2.2), for another recipe's `source: {evolved:}`."""

    questions: Positive = Field(description="New questions asked for, each from a seed drawn with replacement.")
    seeds: Literal["corrections", "questions"] = Field(
        default="corrections", description="Questions with accepted corrections; or any, the control of the paper."
    )
    seed: int = Field(default=0, description="Of the draw.")
    write: AskSpec = Field(description="Who writes a question related to the one that it reads.")
    solve: AskSpec = Field(description="Who answers it; the strict majority is its gold answer.")
    answers: Annotated[int, Field(ge=2)] = Field(default=3, description="Answers a question.")


class Recipe(Spec):
    """A recipe. Keys are artifacts, in the order in which they are made; `grades` has nothing to set."""

    description: str | None = Field(default=None, description="One line, for the report.")
    models: dict[Label, ModelSpec] = Field(default={}, description="Models by name, for all that asks one.")
    source: SourceSpec
    questions: QuestionsSpec
    base: BaseSpec
    samples: SamplesSpec
    locations: LocationsSpec | None = None
    corrections: CorrectionsSpec
    verdicts: VerdictsSpec
    evolved: EvolvedSpec | None = None
    mix: MixSpec
    export: ExportSpec = ExportSpec()
    adapter: AdapterSpec
    answers: AnswersSpec
    probe: ProbeSpec = ProbeSpec()
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
