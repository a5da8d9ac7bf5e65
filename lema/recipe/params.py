"""params.yaml: what is built, and how fast. Nothing here changes a byte of the results; only of weights that are
trained, `trainers` and `trainings` may change the last bits, as another machine may."""

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from lema.recipe.basic_types import Count, Label, Name, Positive, Share, Spec

# Requests in flight at most of a process that asks an endpoint whose concurrency is not given.
MOST_IN_FLIGHT = 512


class Endpoint(Spec):
    """Where a family of models is served. Changes no byte, so it is in no key."""

    url: str
    key: str | None = Field(default=None, description="Name of the environment variable that holds the API key.")
    concurrency: Positive | None = Field(default=None, description="Requests in flight; adaptive when absent.")
    requests_per_minute: Positive | None = None
    input_tokens_per_minute: Positive | None = Field(default=None, description="Expected from the length of prompts.")
    output_tokens_per_minute: Positive | None = Field(default=None, description="Expected from the replies so far.")
    timeout: float = Field(default=600, gt=0, description="Seconds a request.")
    retries: Count = 5
    actors: Positive = Field(default=1, description="Processes that ask it, for above a thousand replies a second.")
    mode: Literal["online", "batch"] = Field(default="online", description="`batch`: within a day, for less money.")
    models: dict[str, str] = Field(default={}, description="What it calls models, where not as the recipe does.")

    def part(self) -> "Endpoint":
        """The endpoint as one of its actors knows it: limits that are not above the whole together."""
        return self.model_copy(update={name: limit // self.actors for name, limit in self._limits().items()})

    def _limits(self) -> dict[str, int]:
        limits = ("concurrency", "requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")
        return {name: limit for name in limits if (limit := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _something_for_each(self) -> "Endpoint":
        least = min(self._limits().values(), default=self.actors)
        if self.actors > least:
            raise ValueError(f"actors is {self.actors}, and so many cannot share a limit of {least}")
        if self.actors > 1 and self.mode == "batch":
            raise ValueError("actors above 1 needs mode: online")
        return self


def _exact_decimal(value: Any) -> Any:
    """Numbers of YAML as they are written: 0.1 is a tenth, not the binary fraction nearest to it."""
    return Decimal(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


Money = Annotated[Decimal, BeforeValidator(_exact_decimal), Field(ge=0)]


class Price(Spec):
    """What a model costs, in dollars a million tokens."""

    input: Money = Field(description="A million tokens of prompts.")
    output: Money = Field(description="A million tokens of replies, hidden reasoning included.")
    cached: Money | None = Field(default=None, description="Prompts in the endpoint's cache; as input when absent.")
    batch: Money = Field(default=Decimal(1), le=1, description="Share of these prices that requests of a batch cost.")

    @property
    def free(self) -> bool:
        """Whether nothing costs anything."""
        return not (self.input or self.output or self.cached)


class Budget(Spec):
    """The most that may be spent, in dollars, by all requests that the ledger has: a hard stop."""

    total: Money | None = Field(default=None, description="On all recipes together.")
    recipes: dict[Name, Money] = Field(default={}, description="On single recipes, by name.")

    @property
    def given(self) -> bool:
        """Whether there is any limit."""
        return self.total is not None or bool(self.recipes)


class Vllm(Spec):
    """How vLLM's engine uses the machine; what decides replies is among the model's options."""

    gpu_memory_utilization: Share | None = Field(default=None, description="Share of a GPU's memory that it takes.")
    tensor_parallel_size: Positive | None = Field(default=None, description="GPUs a model; above 1: executor local.")
    max_num_seqs: Positive | None = Field(default=None, description="Replies under way at once, at most.")
    enforce_eager: bool | None = Field(default=None, description="Start sooner and answer slower.")


class Run(Spec):
    """`params.yaml: run`: what changes only speed. Listed as a parameter by no stage."""

    executor: Literal["local", "ray"] = "ray"
    workers: Positive = Field(default=1, description="Processes that hold a local model.")
    batch: Positive = Field(default=64, description="Requests that a local model answers at once.")
    trainers: Positive = Field(default=1, description="Processes that share the batches of one training.")
    trainings: Positive = Field(default=1, description="Trainings at a time: seeds, and arms of a whole run.")
    vllm: Vllm = Field(default=Vllm(), description="Engine of the backend vllm.")
    max_failures: Share = Field(default=0.1, description="Share of requests that may fail before a stage does.")
    endpoints: dict[Label, Endpoint] = Field(default={}, description="Where models are served, by name.")
    prices: dict[str, Price] = Field(default={}, description="By a model's name; before those that lema knows.")
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _executor_can(self) -> "Run":
        several = [name for name, one in self.endpoints.items() if one.actors > 1]
        if self.executor == "ray":
            if (self.vllm.tensor_parallel_size or 1) > 1:
                raise ValueError("vllm.tensor_parallel_size above 1 needs executor: local")
        elif several:
            raise ValueError(f"endpoints.{several[0]}.actors above 1 needs executor: ray")
        elif self.trainers > 1 or self.trainings > 1:
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
