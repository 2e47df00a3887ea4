"""Telex's server: picows frames under uvicorn."""

from telex.server.protocol import WebSocketProtocol

__all__ = ("WebSocketProtocol",)
