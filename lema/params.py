"""params.yaml: what is built, and how fast. Nothing here changes a byte of the results; only of weights that are
trained, `trainers` and `trainings` may change the last bits, as another machine may."""

from typing import Literal

from pydantic import Field, model_validator

from lema.recipe import Count, Label, Name, Positive, Share, Spec


class Endpoint(Spec):
    """Where a family of models is served. Changes no byte, so it is in no key."""

    url: str
    key: str | None = Field(default=None, description="Name of the environment variable that holds the API key.")
    concurrency: Positive = Field(default=16, description="Requests in flight.")
    timeout: float = Field(default=600, gt=0, description="Seconds a request.")
    retries: Count = 5
    models: dict[str, str] = Field(
        default={}, description="What it calls a model, where that is not the name in the recipe: a path, an alias."
    )


class Run(Spec):
    """`params.yaml: run`: what changes only speed. Listed as a parameter by no stage."""

    executor: Literal["local", "ray"] = "ray"
    workers: Positive = Field(default=1, description="Processes that hold a local model.")
    batch: Positive = Field(default=64, description="Requests that a local model answers at once.")
    trainers: Positive = Field(default=1, description="Processes that share the batches of one training.")
    trainings: Positive = Field(default=1, description="Trainings at a time: seeds, and arms of a whole run.")
    max_failures: Share = Field(default=0.1, description="Share of requests that may fail before a stage does.")
    endpoints: dict[Label, Endpoint] = Field(default={}, description="Where models are served, by name.")

    @model_validator(mode="after")
    def _ray_trains(self) -> "Run":
        if self.executor == "local" and (self.trainers > 1 or self.trainings > 1):
            raise ValueError("trainers and trainings above 1 need executor: ray")
        return self


class RunName(Spec):
    """A run: one arm of one recipe."""

    recipe: Name
    arm: Name


class Params(Spec):
    """params.yaml. `recipes` says what is built, and which file outside the recipe each reads (its source or
    imported paths; constraints.txt when there is none); `runs` names every arm of every recipe."""

    recipes: dict[Name, str]
    runs: dict[Name, RunName]
    run: Run = Run()
