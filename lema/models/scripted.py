"""`scripted`: a backend without a model, to try a pipeline, a prompt or a parser in seconds and for nothing.

models:
  student:
    backend: scripted
    options:
      rules:
        - {when: "twice as many", reply: "He has 2 * 3 = 6.\\nThe answer is 6."}
        - {when: "weather", refuse: policy}
        - {when: "hundred", fail: timed out}
      replies: ["The answer is 1.", "The answer is 2."]
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from lema.errors import RunError
from lema.models.types import Completion, Model, Request, Worker, cut
from lema.recipe.params import Run

RULE_OUTCOMES: Final = ("reply", "fail", "refuse")


def scripted(
    model: Model,
    run: Run,  # noqa: ARG001
    *,
    replies: list[str] | None = None,
    rules: list[dict[str, str]] | None = None,
) -> Worker:
    """Answers from the recipe: the first rule whose `when` is in the last message, else one of `replies`.

    A rule is `{when: ..., reply: ...}`, or `fail:` or `refuse:` with a reason in place of `reply`. `replies` are taken
    in turn by the index of the path, from a start that the messages decide, so that samples of one question differ.
    Stop strings and `max_tokens` (one word is one token) are honoured.

    Raises:
        RunError: there is neither, or a rule has other keys.
    """
    known = rules or []
    for number, rule in enumerate(known, start=1):
        if len(rule) != 2 or "when" not in rule or not any(name in rule for name in RULE_OUTCOMES):
            raise RunError(f"model {model.label!r}: rule {number} needs `when` and one of {', '.join(RULE_OUTCOMES)}")
    if not known and not replies:
        raise RunError(f"model {model.label!r}: a scripted model needs replies, rules or both")

    def worker(requests: Sequence[Request], /) -> list[Completion]:
        return [_scripted_reply(request, known, replies or []) for request in requests]

    return worker


def _scripted_reply(request: Request, rules: Sequence[Mapping[str, str]], replies: Sequence[str]) -> Completion:
    asked = request.messages[-1].content
    rule = next((rule for rule in rules if rule["when"] in asked), None)
    if rule is None and not replies:
        return Completion("", "failed", "no rule of the script applies")
    if rule is not None and "reply" not in rule:
        return Completion("", "failed" if "fail" in rule else "refused", rule.get("fail") or rule["refuse"])
    if rule is not None:
        text = rule["reply"]
    else:
        script = "\0".join(message.content for message in request.messages)
        start = int.from_bytes(hashlib.sha256(script.encode()).digest()[:8])
        text = replies[(start + request.index) % len(replies)]
    text, _ = cut(text, request.sampling.stop)
    words = text.split(" ")
    most = request.sampling.max_tokens
    return Completion(
        " ".join(words[:most]),
        "length" if len(words) > most else "stop",
        prompt_tokens=sum(len(message.content.split()) for message in request.messages),
        completion_tokens=min(len(words), most),
    )
