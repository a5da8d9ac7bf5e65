"""Connections on which no reply can be taken for another's. Imported when a connection is made: aiohttp is heavy."""

from typing import Any

from aiohttp import ClientSession, TCPConnector


class Connector(TCPConnector):
    """Does not use a connection again on which something came that nobody had asked for: a server, or a proxy before
    it, that delivers a reply twice would have the next request answered with it."""

    async def _get(self, *arguments: Any) -> Any:
        while (connection := await super()._get(*arguments)) is not None:
            if connection.protocol is None or not connection.protocol.should_close:
                break
            connection.close()
        return connection


def session(ssl: Any, keep: float = 4.0) -> ClientSession:
    """Connections are kept for `keep` seconds without work, less than servers do; how many there are is decided
    elsewhere."""
    return ClientSession(connector=Connector(limit=0, ssl=ssl, keepalive_timeout=keep))
