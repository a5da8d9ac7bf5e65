"""What stages that ask models share: requests and replies, what a prompt is given, and choices by seed."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from lema.models.types import Completion, Model, Request, Sampling
from lema.recipe.basic_types import AskSpec, Prompt, SamplingSpec
from lema.recipe.prompt import digest, render
from lema.rows import Question, Sample, row_class
from lema.text.steps import number_steps, split_steps

GenerateFn = Callable[[Iterable[Request]], Iterator[Completion]]
AskedItem = TypeVar("AskedItem")

DIGEST = 32  # bytes of a SHA-256


def sampling_parameters(spec: SamplingSpec) -> Sampling:
    """The sampling parameters of a sampler, corrector or the answers."""
    return Sampling(**spec.model_dump(include=set(Sampling.__slots__)))


@row_class
class PromptedModel:
    """A model with a prompt and sampling parameters: what all requests of one kind share."""

    model: Model
    prompt: Prompt
    sampling: Sampling
    digest: str

    def request(self, variables: Mapping[str, Any], index: int = 0) -> Request:
        """A request with these variables in the prompt; the index tells apart those that are equal else."""
        return Request(self.model, render(self.prompt, variables), self.sampling, index, self.digest)

    def origin(self, completion: str, reply: Completion) -> dict[str, Any]:
        """Where a row comes from: the model's identity, the prompt's SHA-256, the completion's key, its tokens."""
        source = {"model": self.model.identity, "prompt": self.digest, "completion": completion}
        return {**source, "prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}


def prompted_model(spec: AskSpec, models: Mapping[str, Model], base: Model) -> PromptedModel:
    """The model that a section of the recipe asks, or the student itself, with its prompt."""
    model = base if spec.model == "base" else models[spec.model]
    return PromptedModel(model, spec.prompt, sampling_parameters(spec), digest(spec.prompt))


def complete(
    items: Callable[[], Iterable[AskedItem]], request: Callable[[AskedItem], Request], generate: GenerateFn
) -> Iterator[tuple[AskedItem, str, Completion]]:
    """Items, each with the key of its request and the reply.

    `items` is called twice, for the requests and for the results, so that neither items nor prompts are kept: in
    between, memory holds 32 bytes an item.
    """
    keys = bytearray()

    def requests() -> Iterator[Request]:
        for item in items():
            made = request(item)
            keys.extend(bytes.fromhex(made.key))
            yield made

    replies = generate(requests())
    for place, (item, reply) in enumerate(zip(items(), replies, strict=True)):
        yield item, keys[place * DIGEST : (place + 1) * DIGEST].hex(), reply


def memoize(generate: GenerateFn) -> GenerateFn:
    """The same, but what was answered before is not asked again, not even a request that failed."""
    known: dict[str, Completion] = {}

    def memoized(requests: Iterable[Request]) -> Iterator[Completion]:
        named = [(request.key, request) for request in requests]
        new = {name: request for name, request in named if name not in known}
        known.update(zip(new, generate(new.values()), strict=True))
        yield from (known[name] for name, _ in named)

    return memoized


def mistake_variables(question: Question, sample: Sample, hint: str) -> dict[str, Any]:
    """The variables of a prompt about a wrong path: the question, the path, and the hints of the gold solution."""
    steps = split_steps(sample.text)
    variables: dict[str, Any] = {"question": question.text, "path": number_steps(steps), "steps": list(steps)}
    if hint != "none":
        variables["gold"] = question.gold
    if hint == "rationale":
        variables["rationale"] = question.rationale or ""
    return variables


def trained_models(
    base: Model, adapters: Mapping[str, Mapping[int, Model]]
) -> list[tuple[str, str, int | None, Model]]:
    """The base and every training of every arm: name in ids, arm, seed (None for the base), model. The name holds the
    seed only where an arm was trained several times."""
    found: list[tuple[str, str, int | None, Model]] = [("base", "base", None, base)]
    for arm, own in adapters.items():
        found += [(f"{arm}/{seed}" if len(own) > 1 else arm, arm, seed, model) for seed, model in own.items()]
    return found


def shuffle_key(seed: int, name: str) -> bytes:
    """Where an item of this name comes in the order that a seed draws."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def stable_shuffle(items: Iterable[AskedItem], seed: int, name: Callable[[AskedItem], str]) -> list[AskedItem]:
    """Items in an order drawn by seed from their names: two of them come in the same order whatever others there are,
    so that choices of different sizes are nested."""
    return sorted(items, key=lambda item: shuffle_key(seed, name(item)))
