"""Telex's server: picows' frames under uvicorn, for Telex and any other ASGI app.

``telex run app:app``, :func:`run` and :func:`serve` start it whole. ``uvicorn --ws telex.server:WebSocketProtocol``
uses its WebSockets under plain uvicorn, with uvicorn's ``ws_*`` settings. How it refuses, bounds and closes is in
``docs/conformance.md``.
"""

from telex.server.limits import Limits
from telex.server.protocol import WebSocketProtocol
from telex.server.runner import Server, ServerStatus, run, serve
from telex.server.settings import Settings

__all__ = ("Limits", "Server", "ServerStatus", "Settings", "WebSocketProtocol", "run", "serve")
