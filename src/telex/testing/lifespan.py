"""Runs an app's ASGI lifespan around a test."""

from __future__ import annotations

import asyncio
from typing import Literal

from telex.testing.errors import ProtocolMisuse
from telex.testing.tasks import GRACE, is_cancelled, name_of, stop, wait, whereabouts
from telex.types import ASGIApp, Message

__all__ = ("AppLifespan",)


class AppLifespan:
    """Sends ``lifespan.startup`` on :meth:`start` and ``lifespan.shutdown`` on :meth:`stop`.

    ASGI allows an app without a lifespan: an app that raises or returns before it receives the startup event, or that
    answers it with an event of another protocol. Any other exception or missing answer is a failure of the app.
    """

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        """``timeout``: the limit of the startup and of the shutdown, in seconds."""
        self.state: dict[str, object] = {}
        """The state that the app set for its connections; each gets a shallow copy."""
        self._app = app
        self._timeout = timeout
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[Message]
        self._received = False
        self._foreign = False
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Run the app's startup.

        :raises Exception: the exception that the app raised.
        :raises RuntimeError: the app reported a failed startup without an exception, or ended without an answer.
        :raises TimeoutError: the app did not answer in time.
        """
        self._task = asyncio.create_task(self._run(), name=f"lifespan of {name_of(self._app)}")
        try:
            answered = await self._exchange("startup", self._task)
        except BaseException:
            await stop(self._task)
            raise
        if not answered and not self._is_foreign():
            self._raise_error()
            raise RuntimeError(f"{name_of(self._app)} ended its lifespan without an answer to lifespan.startup")

    async def stop(self) -> None:
        """Run the app's shutdown; raises as :meth:`start` does, and any exception of the lifespan since the startup."""
        if self._task is None or self._is_foreign():
            return
        try:
            if not await self._exchange("shutdown", self._task):
                self._raise_error()
        finally:
            await stop(self._task)

    def _is_foreign(self) -> bool:
        return self._foreign or not self._received

    async def _exchange(self, phase: Literal["startup", "shutdown"], task: asyncio.Task[None]) -> bool:
        """Send the event and await the answer; false if the app ended without one."""
        self._events.put_nowait({"type": f"lifespan.{phase}"})
        self._answer = answering = asyncio.get_running_loop().create_future()
        await wait({answering, task}, self._timeout)
        if not answering.done():
            self._check_ended(phase, task)
            return False
        answer = answering.result()
        if answer["type"] == f"lifespan.{phase}.complete":
            return True
        # Frameworks raise an exception with the cause after this answer.
        await wait({task}, GRACE)
        self._raise_error()
        raise RuntimeError(f"{name_of(self._app)} answered {answer['type']}: {answer.get('message', '')}")

    def _check_ended(self, phase: str, task: asyncio.Task[None]) -> None:
        if not task.done():
            waiting = whereabouts(task)
            raise TimeoutError(f"{name_of(self._app)} did not finish its {phase} within {self._timeout:g} s; {waiting}")

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": _VERSIONS, "state": self.state}, self._receive, self._send)
        except BaseException as error:  # also SystemExit, which would end the event loop
            if not (isinstance(error, asyncio.CancelledError) and is_cancelled()):  # only `stop` cancels this task
                self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    async def _receive(self) -> Message:
        self._received = True
        return await self._events.get()

    async def _send(self, event: Message) -> None:
        if not event["type"].startswith("lifespan."):
            self._foreign = True
            raise ProtocolMisuse(f"the app sent {event['type']!r} in the lifespan scope")
        if not self._answer.done():  # a second answer to one event is ignored
            self._answer.set_result(event)


_VERSIONS = {"version": "3.0", "spec_version": "2.0"}
