"""What a test session needs of a connection: the app's side of its own, or a route on a shared one."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from telex.exceptions import WebSocketDisconnect
from telex.types import Message

__all__ = ("Line",)

T = TypeVar("T")


class Line(Protocol):
    """The events of one connection; :class:`telex.testing.app_run.AppRun` documents the methods."""

    left: bool

    async def put(self, event: Message, limit: float) -> None:
        """Queue ``event`` for the app."""

    def put_at_once(self, event: Message) -> None:
        """Queue ``event`` for the app, even above the limit."""

    async def take(self, limit: float, what: str) -> Message | None:
        """The app's next event; ``None`` after the last."""

    async def look(self, index: int, limit: float) -> Message | None:
        """The queued event at ``index``."""

    def disconnect(self, event: Message) -> None:
        """End the connection as the client."""

    def hang_up(self) -> None:
        """Accept no more events from the app."""

    async def finish(self, limit: float) -> None:
        """Wait for the end of the app's work."""

    async def abandon(self) -> None:
        """End the connection, whatever the app does."""

    def ending(self) -> WebSocketDisconnect:
        """The client's exception after an end without a close."""

    async def within(self, wait: Coroutine[Any, Any, T], limit: float, what: str) -> T:
        """Wait at most ``limit`` seconds."""

    def failure(self) -> BaseException | None:
        """The failure of the app or of the test's own functions."""

    def failed_call(self) -> BaseException | None:
        """The failure behind an error that answers a call."""

    def fail(self, error: BaseException) -> None:
        """A function of the test has failed, which the app called."""
