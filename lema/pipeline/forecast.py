"""What would be bought: a `generate` that sends nothing and counts, and how long prompts and replies will be.

Replies that the store has are the real ones, so what follows from them is exact. For one that is missing a placeholder
stands in, a text of the expected length that begins with `MARK`. A request whose prompt holds the mark was made of a
reply that is not there yet: its number is an estimate.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from lema.completions import ledger
from lema.completions.prices import max_reply_tokens, price_of, prompt_characters, token_cost
from lema.models.types import Completion, Model, Request, key
from lema.recipe.params import Price, Run

MARK = "\ue000"  # of Unicode's private use: in no prompt and no reply
ENOUGH = 20  # replies from which a mean is taken
# Characters a token, and replies as a share of the most that is allowed, where nothing is known of a model:
# at the low, the expected and the high estimate.
CHARACTERS = (5.0, 4.0, 2.5)
LENGTHS = (0.1, 0.4, 1.0)
# Around a measured mean.
MARGINS = (0.8, 1.0, 1.25)
# What one request in flight is taken to bring, for the time.
TOKENS_A_SECOND, SECONDS_A_REQUEST = 50, 1.0
USUAL_CONCURRENCY = 16  # where the endpoint has no fixed one

Three = tuple[float, float, float]  # low, expected, high


@dataclass
class LengthSums:
    """Sums over known requests of one model."""

    requests: int = 0
    characters: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, characters: int, prompt_tokens: int, completion_tokens: int) -> None:
        self.requests += 1
        self.characters += characters
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens


class Lengths:
    """What is known of the lengths of a model's prompts and replies, in the stage that asks and anywhere."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str | None], LengthSums] = defaultdict(LengthSums)

    @classmethod
    def of(cls, place: Path) -> "Lengths":
        """From the ledgers of a folder."""
        past = cls()
        for line in ledger.read_ledger(place):
            if line["kind"] == "request" and line["finish"] in ("stop", "length"):
                counts = (line["characters"], line["prompt_tokens"], line["completion_tokens"])
                past.add(line["name"] or line["model"], line["stage"], *counts)
        return past

    def add(self, name: str, stage: str, characters: int, prompt_tokens: int, completion_tokens: int) -> None:
        for place in (stage, None):
            self._known[name, place].add(characters, prompt_tokens, completion_tokens)

    def ratio(self, name: str) -> Three:
        """Characters a token of a prompt."""
        own = self._known.get((name, None), LengthSums())
        if own.requests < ENOUGH or not own.prompt_tokens:
            return CHARACTERS
        mean = own.characters / own.prompt_tokens
        return mean * 1.05, mean, mean / 1.05

    def reply(self, name: str, stage: str) -> float | None:
        """Mean tokens of a reply; None when too few are known."""
        for place in (stage, None):
            own = self._known.get((name, place), LengthSums())
            if own.requests >= ENOUGH and own.completion_tokens:
                return own.completion_tokens / own.requests
        return None


@dataclass
class Totals:
    """Requests that are to be bought: their number, characters of their prompts, most tokens of their replies."""

    requests: int = 0
    characters: int = 0
    limit: int = 0


@dataclass
class Requests:
    """What one stage asks of one model. `sure` is what is to be bought for certain, `derived` what follows from
    replies that are not there yet, at the expected number; `spread` says how much fewer or more that may be."""

    stage: str
    model: Model
    price: Price | None
    requests: int = 0
    cached: int = 0
    sure: Totals = field(default_factory=Totals)
    derived: Totals = field(default_factory=Totals)
    spread: Three = (1.0, 1.0, 1.0)

    @property
    def missing(self) -> int:
        return self.sure.requests + self.derived.requests

    @property
    def free(self) -> bool:
        """Whether what is missing costs nothing."""
        return not self.missing or (self.price is not None and self.price.free)

    def tokens(self, past: Lengths) -> tuple[Three, Three]:
        """Tokens of prompts and of replies that are to be bought: low, expected, high."""
        name = self.model.name or self.model.label
        mean, ratio = past.reply(name, self.stage), past.ratio(name)
        prompts, replies = [], []
        for at, share in enumerate(self.spread):
            count = self.sure.requests + share * self.derived.requests
            longest = self.sure.limit + share * self.derived.limit
            prompts.append((self.sure.characters + share * self.derived.characters) / ratio[at])
            guess = LENGTHS[at] * longest if mean is None else min(MARGINS[at] * mean * count, longest)
            replies.append(longest if at == 2 else guess)
        return (prompts[0], prompts[1], prompts[2]), (replies[0], replies[1], replies[2])

    def dollars(self, past: Lengths, run: Run) -> tuple[Decimal, Decimal, Decimal] | None:
        """What is to be bought costs: low, expected, high; None when there is no price."""
        if self.price is None:
            return None
        endpoint = run.endpoints.get(self.model.endpoint or "")
        batch = endpoint is not None and endpoint.mode == "batch"
        prompts, replies = self.tokens(past)
        low, expected, high = (
            token_cost(self.price, sent, 0, written, batch=batch)
            for sent, written in zip(prompts, replies, strict=True)
        )
        return low, expected, high

    def seconds(self, past: Lengths, run: Run) -> float | None:
        """How long it takes at the limits of its endpoint; None for what runs here, and for a batch."""
        endpoint = run.endpoints.get(self.model.endpoint or "")
        if endpoint is None or not self.missing or endpoint.mode == "batch":
            return None
        prompts, replies = self.tokens(past)
        work = self.missing * SECONDS_A_REQUEST + replies[1] / TOKENS_A_SECOND
        limits = (
            (self.missing, endpoint.requests_per_minute),
            (prompts[1], endpoint.input_tokens_per_minute),
            (replies[1], endpoint.output_tokens_per_minute),
        )
        limited = [60 * amount / rate for amount, rate in limits if rate]
        width = endpoint.concurrency or USUAL_CONCURRENCY
        return max(work / width, *limited) if limited else work / width


class Forecast:
    """Takes the place of `Generate`. `stage` is set before a stage is called; `asked` holds the counts."""

    def __init__(self, known: Callable[[str], Completion | None], run: Run, past: Lengths) -> None:
        self._known, self._run, self.past = known, run, past
        self.stage = ""
        self.asked: dict[tuple[str, str], Requests] = {}
        self._seen: dict[str, str] = {}  # the placeholders by key, empty where the reply is there

    def __call__(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            name = key(request)
            known = self._known(name)
            if name not in self._seen:
                self._seen[name] = self._count(request, known)
            yield known or Completion(self._seen[name], "stop")

    def of(self, stage: str) -> Sequence[Requests]:
        """What a stage asks, by model."""
        return [one for (name, _), one in self.asked.items() if name == stage]

    def _count(self, request: Request, reply: Completion | None) -> str:
        """Count a request; the text of its placeholder where it has no reply."""
        model = request.model
        if (self.stage, model.label) not in self.asked:
            self.asked[self.stage, model.label] = Requests(self.stage, model, price_of(model, self._run))
        asked = self.asked[self.stage, model.label]
        asked.requests += 1
        length = prompt_characters(request.messages)
        if reply is not None:
            asked.cached += 1
            self.past.add(model.name or model.label, self.stage, length, reply.prompt_tokens, reply.completion_tokens)
            return ""
        made_of_others = any(MARK in message.content for message in request.messages)
        totals = asked.derived if made_of_others else asked.sure
        totals.requests += 1
        totals.characters += length
        totals.limit += max_reply_tokens(model, request.sampling.max_tokens) or request.sampling.max_tokens
        return self._placeholder(request)

    def _placeholder(self, request: Request) -> str:
        """A text of the expected length in lines like steps; no two are equal."""
        name = request.model.name or request.model.label
        tokens = self.past.reply(name, self.stage) or LENGTHS[1] * request.sampling.max_tokens
        return placeholder(len(self._seen), int(tokens * self.past.ratio(name)[1]))


def placeholder(number: int, length: int) -> str:
    """A text that stands for one that is not there yet."""
    # Letters: filters look for equations in every run of signs.
    line = f"{MARK} {number} ".ljust(60, "x") + "\n"
    return (line * (length // len(line) + 1))[: max(length, len(line) - 1)].strip()
