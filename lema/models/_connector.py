"""Connections on which no reply can be taken for another's. Imported when a connection is made: aiohttp is heavy.

A server, or a proxy before it, that delivers a reply twice would have the next request on that connection answered with
it, and the one after that with the reply to this one.
"""

import re
from contextvars import ContextVar
from typing import Any

from aiohttp import ClientPayloadError, ClientSession, TCPConnector
from aiohttp.client_proto import ResponseHandler

REMEMBERED = 4096  # replies; one that comes again follows its first delivery on the same connection
NAME = re.compile(rb'"id"\s*:\s*"([^"\\]+)"')

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


class Delivered:
    """The replies of one endpoint, known by the id that each has in the API. An endpoint that gives the same id to more
    replies than not, or to different ones, names nothing by it, and nothing is then refused."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self._fresh = self._repeated = 0
        self._names = True

    def check(self, content: bytes) -> None:
        """To be called in the task that received a reply.

        Raises:
            ClientPayloadError: it came before. Its connection, on which all later ones are out of step, is closed.
        """
        found = NAME.search(content)
        if not self._names or found is None:
            return
        name, mark = found[1], hash(content)
        if name not in self._seen:
            self._seen[name] = mark
            self._fresh += 1
            if len(self._seen) > REMEMBERED:
                del self._seen[next(iter(self._seen))]
            return
        self._repeated += 1
        self._names = self._seen[name] == mark and self._repeated <= self._fresh
        if not self._names:
            return
        connection = _used.get()
        if connection is not None and connection.transport is not None:
            connection.force_close()
            connection.transport.close()
        raise ClientPayloadError("a reply was delivered twice")


def session(ssl: Any, keep: float = 4.0) -> ClientSession:
    """Connections are kept for `keep` seconds without work, less than servers do; how many there are is decided
    elsewhere."""
    return ClientSession(connector=Connector(limit=0, ssl=ssl, keepalive_timeout=keep))
