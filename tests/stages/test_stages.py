"""What stages share when they ask models."""

from collections.abc import Iterable, Iterator

from lema.models.types import Completion, Request, Sampling
from lema.rows import Message
from lema.stages.common import complete, memoize
from tests.stages.rows import BASE, Script


def request(text: str) -> Request:
    return Request(BASE, (Message("user", text),), Sampling())


def test_items_come_with_key_and_reply() -> None:
    generate = Script(lambda request: Completion(request.messages[0].content.upper(), "stop"))
    found = [(item, name, reply.text) for item, name, reply in complete(lambda: ["a", "b", "a"], request, generate)]
    assert found == [("a", request("a").key, "A"), ("b", request("b").key, "B"), ("a", request("a").key, "A")]


def test_requests_are_made_as_they_are_taken() -> None:
    made: list[str] = []

    def remember(text: str) -> Request:
        made.append(text)
        return request(text)

    def one_by_one(requests: Iterable[Request]) -> Iterator[Completion]:
        return (Completion(one.messages[0].content, "stop") for one in requests)

    for taken, (item, _, reply) in enumerate(complete(lambda: ["a", "b", "c"], remember, one_by_one), start=1):
        assert (item, len(made)) == (reply.text, taken)


def test_what_was_answered_is_not_asked_again_though_it_failed() -> None:
    generate = Script(lambda request: Completion("", "failed", f"no {request.messages[0].content}"))
    asking = memoize(generate)
    for texts in ("ab", "bca", "", "c"):
        replies = list(asking(request(text) for text in texts))
        assert [reply.error for reply in replies] == [f"no {text}" for text in texts]
    assert [one.messages[0].content for one in generate.asked] == ["a", "b", "c"]
