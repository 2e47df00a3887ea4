"""``data: bytes`` is the payload unchanged; a text frame gives the UTF-8 bytes of its text."""

import hashlib

from telex import Telex, websocket_listener


@websocket_listener("/")
async def handler(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


app = Telex([handler])
