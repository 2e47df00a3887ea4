"""Telex's server: picows' frames under uvicorn, for Telex and any other ASGI app.

``telex run app:app``, :func:`run` and :func:`serve` start the whole server. ``uvicorn --ws
telex.server:WebSocketProtocol`` uses only its WebSocket protocol under plain uvicorn, with uvicorn's ``ws_*`` settings.
``docs/conformance.md`` describes how the server refuses, limits and closes connections.
"""

from telex.server.limits import Limits
from telex.server.protocol import WebSocketProtocol
from telex.server.runner import Server, ServerStatus, run, serve
from telex.server.settings import Settings

__all__ = ("Limits", "Server", "ServerStatus", "Settings", "WebSocketProtocol", "run", "serve")
