"""Stages: one pure function an artifact, named after it; its positional parameters are named after what it reads.

What a stage needs of the world (`generate`, `pmap`, `read_file`, `train`...) is passed in as keywords by
`lema.pipeline.run`; no stage knows of Ray, endpoints, DVC or Parquet.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from lema.models.types import Completion, Model, Request, Sampling, key
from lema.recipe.basic_types import SamplingSpec
from lema.rows import Outcome, Question, Sample
from lema.tasks import Task, Undecided
from lema.text.steps import number, split

Generate = Callable[[Iterable[Request]], Iterator[Completion]]
Item = TypeVar("Item")


def sampling(spec: SamplingSpec) -> Sampling:
    """The sampling parameters of a sampler, corrector or the answers."""
    return Sampling(
        temperature=spec.temperature,
        top_p=spec.top_p,
        top_k=spec.top_k,
        max_tokens=spec.max_tokens,
        stop=spec.stop,
        seed=spec.seed,
    )


def ask(
    items: Sequence[Item], request: Callable[[Item], Request], generate: Generate
) -> Iterator[tuple[Item, str, Completion]]:
    """Items, each with the key of its request and the reply. A request holds a prompt: it is made when `generate` takes
    it, and not kept."""
    keys: deque[str] = deque()

    def requests() -> Iterator[Request]:
        for item in items:
            made = request(item)
            keys.append(key(made))
            yield made

    for item, reply in zip(items, generate(requests()), strict=True):
        yield item, keys.popleft(), reply


def once(generate: Generate) -> Generate:
    """The same, but what it has answered before is not asked again, not even a request that failed."""
    said: dict[str, Completion] = {}

    def remembering(requests: Iterable[Request]) -> Iterator[Completion]:
        named = [(key(request), request) for request in requests]
        new = {name: request for name, request in named if name not in said}
        said.update(zip(new, generate(new.values()), strict=True))
        yield from (said[name] for name, _ in named)

    return remembering


def provenance(model: Model, prompt: str, completion: str) -> dict[str, Any]:
    """Where a reply comes from: the model's identity, the prompt's SHA-256, the completion's key."""
    return {"model": model.identity, "prompt": prompt, "completion": completion}


def shown(question: Question, sample: Sample, hint: str) -> dict[str, Any]:
    """What a prompt about a wrong path may use: the question, the path, and the hints of the gold solution."""
    steps = split(sample.text)
    variables: dict[str, Any] = {"question": question.text, "path": number(steps), "steps": list(steps)}
    if hint != "none":
        variables["gold"] = question.gold
    if hint == "rationale":
        variables["rationale"] = question.rationale or ""
    return variables


def usage(completion: Completion) -> dict[str, Any]:
    """Tokens of one completion."""
    return {"prompt_tokens": completion.prompt_tokens, "completion_tokens": completion.completion_tokens}


def grade(text: str, finish: str, gold: str, task: Task) -> tuple[Outcome, str | None]:
    """What a text is worth, and the answer in it. A text that was cut short before it could be right is truncated,
    never incorrect: it is no mistake of reasoning. Neither is one whose answer could not be compared."""
    if finish in ("failed", "refused"):
        return "failed", None
    answer = task.extract(text)
    equal = Undecided.UNPARSED if answer is None else task.equal(answer, gold)
    if equal:
        return "correct", answer
    if finish == "length":
        return "truncated", answer
    if isinstance(equal, Undecided):
        return "unparsed" if equal is Undecided.UNPARSED else "timeout", answer
    return "incorrect", answer


def trained(base: Model, adapters: Mapping[str, Mapping[int, Model]]) -> list[tuple[str, str, int | None, Model]]:
    """The base and every training of every arm: name in ids, arm, seed (None for the base), model. Only where an arm
    was trained several times does its name tell the seed."""
    found: list[tuple[str, str, int | None, Model]] = [("base", "base", None, base)]
    for arm, own in adapters.items():
        found += [(f"{arm}/{seed}" if len(own) > 1 else arm, arm, seed, model) for seed, model in own.items()]
    return found


def chosen(items: Iterable[Item], seed: int, name: Callable[[Item], str]) -> list[Item]:
    """Items in an order drawn by seed from their names, so that choices of different sizes are nested."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed}:{name(item)}".encode()).hexdigest())


__all__ = [
    *("Generate", "Model", "ask", "chosen", "grade", "once", "provenance", "sampling", "shown", "trained", "usage"),
]
