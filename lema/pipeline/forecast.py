"""How long prompts and replies will be, and what they cost: the figures of `lema plan`, each low, expected and high."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np

from lema.completions.ledger import LedgerLine
from lema.completions.prices import token_cost
from lema.models.types import Model
from lema.recipe.params import Endpoint, Price

ENOUGH = 20  # replies from which a mean is taken
# Characters a token, and replies as a share of the most that is allowed, where nothing is known of a model.
CHARACTERS = (5.0, 4.0, 2.5)
LENGTHS = (0.1, 0.4, 1.0)
# Around a measured mean.
MARGINS = (0.8, 1.0, 1.25)
# What one request in flight is taken to bring, for the time.
TOKENS_A_SECOND, SECONDS_A_REQUEST = 50, 1.0
USUAL_CONCURRENCY = 16  # where the endpoint has no fixed one

Three = Sequence[float]  # low, expected, high
CERTAIN: Three = (1.0, 1.0, 1.0)


class Lengths:
    """What is known of a model's prompts and replies, in the stage that asks and anywhere: sums over requests."""

    def __init__(self, lines: Iterable[LedgerLine] = ()) -> None:
        # Number, characters of prompts, their tokens, tokens of replies.
        self._sums: dict[tuple[str, str | None], list[int]] = defaultdict(lambda: [0] * 4)
        for line in lines:
            if line["kind"] == "request" and line["finish"] in ("stop", "length"):
                counts = (line["characters"], line["prompt_tokens"], line["completion_tokens"])
                self.add(line["name"] or line["model"], line["stage"], *counts)

    def add(self, name: str, stage: str, characters: int, prompt_tokens: int, completion_tokens: int) -> None:
        for place in (stage, None):
            sums, more = self._sums[name, place], (1, characters, prompt_tokens, completion_tokens)
            sums[:] = map(sum, zip(sums, more, strict=True))

    def ratio(self, name: str) -> Three:
        """Characters a token of a prompt."""
        requests, characters, tokens, _ = self._sums[name, None]
        if requests < ENOUGH or not tokens:
            return CHARACTERS
        mean = characters / tokens
        return mean * 1.05, mean, mean / 1.05

    def reply(self, name: str, stage: str) -> float | None:
        """Mean tokens of a reply; None when too few are known."""
        for requests, _, _, tokens in (self._sums[name, stage], self._sums[name, None]):
            if requests >= ENOUGH and tokens:
                return tokens / requests
        return None


@dataclass(eq=False)
class Requests:
    """What one stage asks of one model. `sure` is to be bought for certain, `derived` follows from replies that are
    not there yet, at its expected number, and `spread` says how much fewer or more that may be. Both count requests,
    characters of their prompts, and the most tokens of their replies."""

    stage: str
    model: Model
    price: Price | None
    endpoint: Endpoint | None
    past: Lengths
    spread: Three
    requests: int = 0
    cached: int = 0
    sure: Any = field(default_factory=lambda: np.zeros(3))
    derived: Any = field(default_factory=lambda: np.zeros(3))

    @property
    def name(self) -> str:
        """What prices, ledgers and messages call the model."""
        return self.model.name or self.model.label

    @property
    def missing(self) -> int:
        return int(self.sure[0] + self.derived[0])

    @property
    def free(self) -> bool:
        """Whether what is missing costs nothing."""
        return not self.missing or (self.price is not None and self.price.free)

    def tokens(self) -> tuple[Three, Three]:
        """Tokens of prompts and of replies that are to be bought."""
        mean, ratio = self.past.reply(self.name, self.stage), self.past.ratio(self.name)
        prompts, replies = [], []
        for at, share in enumerate(self.spread):
            count, characters, most = (float(one) for one in self.sure + share * self.derived)
            guess = LENGTHS[at] * most if mean is None else min(MARGINS[at] * mean * count, most)
            prompts.append(characters / ratio[at])
            replies.append(most if at == 2 else guess)
        return prompts, replies

    def dollars(self) -> Sequence[Decimal] | None:
        """What is to be bought costs; None when there is no price."""
        if self.price is None:
            return None
        batch = self.endpoint is not None and self.endpoint.mode == "batch"
        return [
            token_cost(self.price, sent, 0, written, batch=batch) for sent, written in zip(*self.tokens(), strict=True)
        ]

    def seconds(self) -> float | None:
        """How long it takes at the limits of its endpoint; None for what runs here, and for a batch."""
        if self.endpoint is None or not self.missing or self.endpoint.mode == "batch":
            return None
        (_, prompts, _), (_, replies, _) = self.tokens()
        work = self.missing * SECONDS_A_REQUEST + replies / TOKENS_A_SECOND
        limits = (
            (self.missing, self.endpoint.requests_per_minute),
            (prompts, self.endpoint.input_tokens_per_minute),
            (replies, self.endpoint.output_tokens_per_minute),
        )
        width = self.endpoint.concurrency or USUAL_CONCURRENCY
        return max(work / width, *(60 * amount / rate for amount, rate in limits if rate), 0.0)
