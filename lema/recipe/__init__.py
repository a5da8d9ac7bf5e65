"""The recipe language: one key an artifact.

Reading files, `extends` and the positions of errors are in `lema.plan`; this package is only the shape: `common` is
what all parts share, `samplers` and `data` make the dataset, `training` trains and compares.
"""

from pydantic import Field

from lema.recipe.common import (
    NAME,
    Count,
    Label,
    Name,
    Part,
    PartName,
    Positive,
    Prompt,
    SamplingSpec,
    Share,
    Spec,
)
from lema.recipe.data import (
    Arm,
    AskSpec,
    CorrectionRows,
    CorrectionsSpec,
    CotRows,
    EvolvedSpec,
    Fraction,
    GradesSpec,
    LocationsSpec,
    Match,
    MixSpec,
    ModelSpec,
    QuestionsSpec,
    Size,
    SourceSpec,
    VerdictsSpec,
)
from lema.recipe.samplers import (
    ALL_ERRORS,
    PROGRAM_ERRORS,
    BranchSampler,
    BranchSpec,
    ErrorType,
    ImportSampler,
    ImportSpec,
    InjectSampler,
    InjectSpec,
    ModelSampler,
    Sampler,
    SamplesSpec,
    TypedSampler,
)
from lema.recipe.training import (
    AdapterSpec,
    AnswersSpec,
    BaseSpec,
    PretrainSpec,
    ReportSpec,
    ScoresSpec,
)

__all__ = [
    "ALL_ERRORS",
    "NAME",
    "PROGRAM_ERRORS",
    "AdapterSpec",
    "AnswersSpec",
    "Arm",
    "AskSpec",
    "BaseSpec",
    "BranchSampler",
    "BranchSpec",
    "CorrectionRows",
    "CorrectionsSpec",
    "CotRows",
    "Count",
    "ErrorType",
    "EvolvedSpec",
    "Fraction",
    "GradesSpec",
    "ImportSampler",
    "ImportSpec",
    "InjectSampler",
    "InjectSpec",
    "Label",
    "LocationsSpec",
    "Match",
    "MixSpec",
    "ModelSampler",
    "ModelSpec",
    "Name",
    "Part",
    "PartName",
    "Positive",
    "PretrainSpec",
    "Prompt",
    "QuestionsSpec",
    "Recipe",
    "ReportSpec",
    "Sampler",
    "SamplesSpec",
    "SamplingSpec",
    "ScoresSpec",
    "Share",
    "Size",
    "SourceSpec",
    "Spec",
    "TypedSampler",
    "VerdictsSpec",
]


class Recipe(Spec):
    """A recipe. Keys are artifacts, in the order in which they are made."""

    description: str | None = Field(default=None, description="One line, for the report.")
    models: dict[Label, ModelSpec] = Field(default={}, description="Models by name, for all that asks one.")
    source: SourceSpec
    questions: QuestionsSpec
    base: BaseSpec
    samples: SamplesSpec
    grades: GradesSpec = GradesSpec()
    locations: LocationsSpec | None = None
    corrections: CorrectionsSpec
    verdicts: VerdictsSpec
    evolved: EvolvedSpec | None = None
    mix: MixSpec
    adapter: AdapterSpec
    answers: AnswersSpec
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
