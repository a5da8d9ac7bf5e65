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
    CorrectionRows,
    CorrectionsSpec,
    CotRows,
    Fraction,
    GradesSpec,
    ImportSampler,
    ImportSpec,
    Match,
    MixSpec,
    ModelSampler,
    ModelSpec,
    QuestionsSpec,
    Sampler,
    SamplesSpec,
    Size,
    SourceSpec,
    VerdictsSpec,
)
from lema.recipe.training import (
    AdapterSpec,
    AnswersSpec,
    BaseSpec,
    ChooseSpec,
    PretrainSpec,
    ReportSpec,
    ScoresSpec,
)

__all__ = [
    "NAME",
    "AdapterSpec",
    "AnswersSpec",
    "Arm",
    "BaseSpec",
    "ChooseSpec",
    "CorrectionRows",
    "CorrectionsSpec",
    "CotRows",
    "Count",
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
    "VerdictsSpec",
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
    adapter: AdapterSpec
    answers: AnswersSpec
    scores: ScoresSpec = ScoresSpec()
    report: ReportSpec = ReportSpec()
