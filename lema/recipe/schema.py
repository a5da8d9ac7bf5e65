"""The recipe language: one key an artifact.

Reading files, `extends` and the positions of errors are in `lema.plan`; this package is only the shape: `common` is
what all parts share, `samplers` and `data` make the dataset, `training` trains and compares.
"""

from pydantic import Field

from lema.recipe.common import NAME, Count, Label, Name, Part, PartName, Positive, Prompt, SamplingSpec, Share, Spec
from lema.recipe.data import (
    Arm,
    AskSpec,
    ContaminationSpec,
    CorrectionRows,
    CorrectionsSpec,
    CotRows,
    EvolvedSpec,
    ExportSpec,
    Fraction,
    GradesSpec,
    LocationsSpec,
    Match,
    MixSpec,
    ModelSpec,
    Origin,
    QuestionsSpec,
    Size,
    Sized,
    SourceSpec,
    TransferSpec,
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
    WantSpec,
)
from lema.recipe.training import (
    AdapterSpec,
    AnswersSpec,
    BaseSpec,
    ChooseSpec,
    PretrainCorrectionsSpec,
    PretrainSpec,
    ProbeSpec,
    ReportSpec,
    ScoresSpec,
    VotesSpec,
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
    "ChooseSpec",
    "ContaminationSpec",
    "CorrectionRows",
    "CorrectionsSpec",
    "CotRows",
    "Count",
    "ErrorType",
    "EvolvedSpec",
    "ExportSpec",
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
    "Origin",
    "Part",
    "PartName",
    "Positive",
    "PretrainCorrectionsSpec",
    "PretrainSpec",
    "ProbeSpec",
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
    "Sized",
    "SourceSpec",
    "Spec",
    "TransferSpec",
    "TypedSampler",
    "VerdictsSpec",
    "VotesSpec",
    "WantSpec",
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
    export: ExportSpec = ExportSpec()
    adapter: AdapterSpec
    answers: AnswersSpec
    probe: ProbeSpec = ProbeSpec()
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
