"""What is attacked: an echo, with the limits as they come."""

from __future__ import annotations

from telex import Telex, websocket_listener


@websocket_listener("/")
def echo(data: str) -> str:
    """The message itself."""
    return data


app = Telex([echo])
