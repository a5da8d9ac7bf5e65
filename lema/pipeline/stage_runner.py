"""Calling a stage by its signature: the one mechanism of `lema make`, of the dry run and of staleness.

The signature of a stage declares what it needs (dependency injection). Its positional parameters are named after the
artifacts that it reads, its keyword parameters after what it is given: its settings, its task, models, `generate`...
`lema.pipeline.stage_arguments` finds both for `lema make`; a dry run brings its own.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, get_origin

from lema.recipe.load import Loaded
from lema.recipe.params import Run


@dataclass(frozen=True)
class StageSignature:
    """A stage and what it needs: `inputs` by name, each with whether the stage only iterates over it, and keywords."""

    function: Callable[..., Any]
    inputs: Mapping[str, bool]
    keywords: tuple[str, ...]


@cache
def stage_signature(artifact: str) -> StageSignature:
    """The signature of the stage of an artifact."""
    function = getattr(import_module(f"lema.stages.{artifact}"), artifact)
    parameters = inspect.signature(function).parameters.values()
    inputs = {
        one.name: get_origin(one.annotation) is Iterable for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD
    }
    return StageSignature(function, inputs, tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY))


@dataclass
class StageRunner:
    """Calls the stage of one artifact. `read` finds an input by name, the third argument being whether an iterable is
    enough; what providers open is closed with the runner, in reverse order."""

    artifact: str
    loaded: Loaded
    settings: Run
    read: "Callable[[StageRunner, str, bool], Any]"
    providers: "Mapping[str, Callable[[StageRunner], Any]]"
    arm: str | None = None
    offline: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name, self.recipe = self.loaded.name, self.loaded.recipe
        self.opened = ExitStack()
        self._provided: dict[str, Any] = {}

    def call(self, **more: Any) -> Any:
        """What the stage returns; `more` are keyword arguments that no provider has, as those with a default may be."""
        signature = stage_signature(self.artifact)
        inputs = [self.read(self, name, iterable) for name, iterable in signature.inputs.items()]
        return signature.function(
            *inputs, **{name: self.provide(name) for name in signature.keywords if name in self.providers}, **more
        )

    def provide(self, name: str) -> Any:
        """A keyword argument of stages and filters, made when it is first asked for."""
        if name not in self._provided:
            self._provided[name] = self.providers[name](self)
        return self._provided[name]

    def log(self, text: str) -> None:
        """One line on stderr with what is being made."""
        target = f"{self.name}/{self.arm}" if self.arm else self.name
        print(f"{self.artifact} {target}: {text}", file=sys.stderr)  # noqa: T201

    def __enter__(self) -> "StageRunner":
        return self

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)
