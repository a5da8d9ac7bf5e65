"""What all parts of a recipe are made of: names, numbers, prompts, named parts, sampling parameters."""

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

# DVC accepts these in the names of stages and of the keys it tracks; a run is named `<recipe>-<arm>`.
NAME = re.compile(r"[A-Za-z0-9_-]+")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
# Models, endpoints and samplers name no stage, so `gpt-3.5` is a name too.
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
# `gsm8k` is ours, `my_pkg.my_mod:my_task` is the user's (`lema.recipe.part_loader`).
PartName = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Spec(BaseModel):
    """Frozen, strict about types, no unknown keys; of the fields in `one_of` exactly one is given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)
    one_of: ClassVar[tuple[str, ...]] = ()

    def model_post_init(self, _: Any, /) -> None:
        """Raises ValueError unless exactly one is given."""
        if self.one_of and sum(getattr(self, name) is not None for name in self.one_of) != 1:
            raise ValueError(f"needs exactly one of {', '.join(self.one_of)}")


class Prompt(Spec):
    """A prompt: templates in Jinja's sandbox. With `demonstrations`, `user` and `assistant` are rendered once for
    each of them before the real turn (few-shot); as a training format, `user` is the input and `assistant` the
    output. In a recipe: the name of a file in recipes/prompts, or these keys inline."""

    system: str | None = Field(default=None, description="System message; none when absent.")
    user: str = Field(description="Template of the user's turn.")
    assistant: str | None = Field(default=None, description="Template of the reply: of demonstrations and formats.")
    demonstrations: tuple[dict[str, Any], ...] = Field(default=(), description="Variables of worked examples.")

    @model_validator(mode="after")
    def _demonstrations_need_a_reply(self) -> "Prompt":
        if self.demonstrations and self.assistant is None:
            raise ValueError("demonstrations need an `assistant` template: what the reply to each of them is")
        return self


class SamplingSpec(Spec):
    """How replies are drawn."""

    temperature: float = Field(default=0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Share of the probability that is drawn from.")
    top_k: Positive | None = Field(default=None, description="Draw from the likeliest tokens only.")
    max_tokens: Positive = Field(default=512, description="Longest reply.")
    stop: tuple[str, ...] = Field(default=(), description="Strings that end a reply.")
    seed: int = Field(default=0, description="Of the draw; every path has its own.")


class AskSpec(SamplingSpec):
    """A model and how it is asked."""

    model: Label = Field(description="A name under `models`, or `base`: the student itself.")
    prompt: Prompt = Field(description="A file in recipes/prompts, or a prompt inline.")


if TYPE_CHECKING:
    Options = dict[str, Any]
else:

    class Options(TypedDict, total=False):
        """Options of a part by name, of any type but for `prompt`, which is a prompt as elsewhere in a recipe."""

        __pydantic_config__ = ConfigDict(extra="allow", strict=True)
        prompt: Annotated[Prompt, Field(description="A file in recipes/prompts, or a prompt inline.")]


class Part(Spec):
    """A named part with its options. In a recipe: `name`, or `name: {option: value}`."""

    use: PartName
    options: Options = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        if isinstance(raw, str):
            return {"use": raw}
        if not isinstance(raw, dict) or len(raw) != 1:
            raise ValueError("needs a name, or one name with its options: `name: {option: value}`")
        ((use, options),) = raw.items()
        return {"use": use, "options": {} if options is None else options}
