"""Returned ``bytes`` are sent unchanged; in the default mode, ``text``, they must be UTF-8."""

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: str) -> bytes:
    return data.encode()


app = Telex([handler])
