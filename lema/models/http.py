"""Posts to an endpoint, over connections on which no reply can be taken for another's. The only module that imports
aiohttp, which is heavy: imported when a connection is made.

A server, or a proxy before it, that delivers a reply twice would have the next request on that connection answered with
it, and the one after that with the reply to this one.
"""

import os
import re
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakKeyDictionary

from aiohttp import ClientPayloadError, ClientSession, ClientTimeout, TCPConnector
from aiohttp.client_proto import ResponseHandler

KEEP_ALIVE = 4.0  # seconds for which an idle connection is kept, less than servers do
ID = re.compile(rb'"id"\s*:\s*"[^"]')

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


class HttpClient:
    """Posts JSON to an endpoint, with its API key; as many requests at once as are posted. Belongs to one event loop.

    The last reply of each connection is known by its bytes, in which the API has an id. Where the same comes again more
    often than once and in one reply of twenty, ids name nothing, and it is taken.
    """

    def __init__(self, url: str, secret: str, timeout: float) -> None:
        self._url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {secret}", "Accept": "application/json", "User-Agent": "lema"}
        headers["Content-Type"] = "application/json"
        # As OpenAI's own client does, for who belongs to several organizations or projects.
        for name in ("Organization", "Project"):
            if value := os.environ.get(f"OPENAI_{name.upper().replace('ORGANIZATION', 'ORG')}_ID"):
                headers[f"OpenAI-{name}"] = value
        parts = urlsplit(url)
        trusted: Any = True
        if parts.scheme == "https":
            from httpx2 import create_ssl_context  # certificates that the OpenAI client trusts, on every system

            trusted = create_ssl_context()
        self._session = ClientSession(
            connector=Connector(limit=0, ssl=trusted, keepalive_timeout=KEEP_ALIVE),
            headers=headers,
            # For a whole reply: a timeout between two bytes never ends one that drips.
            timeout=ClientTimeout(total=timeout),
            proxy=None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme),
        )
        self._last: WeakKeyDictionary[ResponseHandler, int] = WeakKeyDictionary()
        self._fresh = self._repeated = 0

    async def post(self, path: str, content: bytes) -> tuple[int, Any, bytes]:
        """HTTP status, headers and body of the answer to a JSON object that is posted to a path.

        Raises:
            ClientError, OSError, TimeoutError: there is none, or it was delivered before. The connection of one that
                came before is closed: all later ones on it are out of step.
        """
        async with self._session.post(self._url + path, data=content) as response:
            answer = await response.read()
        connection = _used.get()
        if connection is None:
            return response.status, response.headers, answer
        if response.status >= 300:
            # An error has no id by which a second copy could be known.
            _close(connection)
        elif self._last.get(connection) != (this := hash(answer)):
            self._last[connection] = this
            self._fresh += 1
        elif ID.search(answer):
            self._repeated += 1
            if self._repeated <= 1 + self._fresh // 20:
                _close(connection)
                raise ClientPayloadError("a reply was delivered twice")
        return response.status, response.headers, answer

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def _close(connection: ResponseHandler) -> None:
    """Do not use it again."""
    if connection.transport is not None:
        connection.force_close()
        connection.transport.close()
