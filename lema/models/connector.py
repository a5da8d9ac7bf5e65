"""Connections on which no reply can be taken for another's. Imported when a connection is made: aiohttp is heavy.

A server, or a proxy before it, that delivers a reply twice would have the next request on that connection answered with
it, and the one after that with the reply to this one.
"""

import re
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import ClientPayloadError, ClientSession, TCPConnector
from aiohttp.client_proto import ResponseHandler

NAMED = re.compile(rb'"id"\s*:\s*"[^"]')

_used: ContextVar[ResponseHandler | None] = ContextVar("connection", default=None)


class Connector(TCPConnector):
    """Does not use a connection again on which something came that nobody had asked for."""

    async def _get(self, *arguments: Any) -> Any:
        while (connection := await super()._get(*arguments)) is not None:
            if connection.protocol is None or not connection.protocol.should_close:
                break
            connection.close()
        return connection

    async def connect(self, *arguments: Any, **more: Any) -> Any:
        connection = await super().connect(*arguments, **more)
        _used.set(connection.protocol)
        return connection


def close() -> None:
    """Do not use the connection again on which this task's reply came."""
    connection = _used.get()
    if connection is not None and connection.transport is not None:
        connection.force_close()
        connection.transport.close()


class Delivered:
    """The last reply of each connection, known by its bytes, in which the API has an id. Where the same comes again
    more often than once and in one reply of twenty, ids name nothing, and it is taken."""

    def __init__(self) -> None:
        self._last: WeakKeyDictionary[ResponseHandler, int] = WeakKeyDictionary()
        self._fresh = self._repeated = 0

    def check(self, content: bytes) -> None:
        """To be called in the task that received a reply.

        Raises:
            ClientPayloadError: it came before. Its connection, on which all later ones are out of step, is closed.
        """
        connection, this = _used.get(), hash(content)
        if connection is None or not NAMED.search(content):
            return
        if self._last.get(connection) != this:
            self._last[connection] = this
            self._fresh += 1
            return
        self._repeated += 1
        if self._repeated <= 1 + self._fresh // 20:
            close()
            raise ClientPayloadError("a reply was delivered twice")


def session(ssl: Any, keep: float = 4.0) -> ClientSession:
    """Connections are kept for `keep` seconds without work, less than servers do; how many there are is decided
    elsewhere."""
    return ClientSession(connector=Connector(limit=0, ssl=ssl, keepalive_timeout=keep))
