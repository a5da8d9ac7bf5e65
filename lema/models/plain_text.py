"""Chat messages as plain text, for models without a chat template."""

from collections.abc import Sequence

from lema.rows import Message


def plain(messages: Sequence[Message]) -> str:
    """The contents, each ended by a line break; a plain model continues right after the last one.

    >>> plain([Message("user", "1 + 1 = ?"), Message("assistant", "2"), Message("user", "2 + 2 = ?")])
    '1 + 1 = ?\\n2\\n2 + 2 = ?\\n'
    """
    return "".join(f"{message.content}\n" for message in messages)
