"""The recipe language: one key an artifact.

Reading files, `extends` and the positions of errors are in `lema.plan`; this package is only the shape: `common` is
what all parts share, `data` makes the dataset, `training` trains and compares.
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
    ContaminationSpec,
    CorrectionRows,
    CorrectionsSpec,
    CotRows,
    ExportSpec,
    Fraction,
    GradesSpec,
    ImportSampler,
    ImportSpec,
    Match,
    MixSpec,
    ModelSampler,
    ModelSpec,
    Origin,
    QuestionsSpec,
    Sampler,
    SamplesSpec,
    Size,
    Sized,
    SourceSpec,
    TransferSpec,
    VerdictsSpec,
)
from lema.recipe.training import (
    AdapterSpec,
    AnswersSpec,
    BaseSpec,
    PretrainSpec,
    ProbeSpec,
    ReportSpec,
    ScoresSpec,
    VotesSpec,
)

__all__ = [
    "NAME",
    "AdapterSpec",
    "AnswersSpec",
    "Arm",
    "BaseSpec",
    "ContaminationSpec",
    "CorrectionRows",
    "CorrectionsSpec",
    "CotRows",
    "Count",
    "ExportSpec",
    "Fraction",
    "GradesSpec",
    "ImportSampler",
    "ImportSpec",
    "Label",
    "Match",
    "MixSpec",
    "ModelSampler",
    "ModelSpec",
    "Name",
    "Origin",
    "Part",
    "PartName",
    "Positive",
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
    "VerdictsSpec",
    "VotesSpec",
]


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
    export: ExportSpec = ExportSpec()
    adapter: AdapterSpec
    answers: AnswersSpec
    probe: ProbeSpec = ProbeSpec()
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
