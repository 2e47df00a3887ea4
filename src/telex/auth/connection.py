"""The identity of one connection, from its handshake to its expiry.

::

    the handshake has a token ──> the provider ──> guards ──> accepted ──> the timer runs
                                                                 │
       expired: nothing new is taken <──────────────────────────┘
          └── calls in work have ended, or GRACE seconds passed ──> closed with 4401

The timers are those of the event loop, which has the only clock here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Final

from telex.auth.identity import Identity
from telex.auth.provider import Identify
from telex.auth.tokens import FindToken
from telex.clock import loop_time
from telex.connection import Socket
from telex.status_codes import CLOSE_CODE_OF_STATUS, HTTP_401_UNAUTHORIZED

__all__ = ("Authenticator", "ConnectionIdentity")

GRACE: Final = 10.0
"""Seconds that calls in work have after the token has expired."""
LOOK_EVERY: Final = 0.05
"""Seconds between looks whether calls in work have ended."""
CLOSE_WITHIN: Final = 5.0
"""Seconds allowed for sending a close frame: a client that does not read must not keep the connection."""
_EXPIRED: Final = (CLOSE_CODE_OF_STATUS + HTTP_401_UNAUTHORIZED, "the token has expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """The option ``authenticate`` of one handler, compiled."""

    where: str
    find: FindToken
    identify: Identify

    async def authenticate(self, socket: Socket) -> None:
        """Find out who a client is, before it is accepted.

        :raises Exception: the handshake is refused.
        """
        socket.began = loop_time()
        identity = await self.identify(socket, self.find(socket))
        socket.scope["user"] = identity.user
        socket.authentication = ConnectionIdentity(self, socket, identity)


class ConnectionIdentity:
    """Who the client of one connection is, and until when."""

    __slots__ = ("_authenticator", "_closing", "_expires_at", "_loop", "_socket", "_timer")

    def __init__(self, authenticator: Authenticator, socket: Socket, identity: Identity[Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._authenticator = authenticator
        self._socket = socket
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._expires_at = self._end_of(identity)

    def _end_of(self, identity: Identity[Any]) -> float | None:
        return None if identity.expires_in is None else self._loop.time() + identity.expires_in

    @property
    def hello(self) -> dict[str, object]:
        """What ``hello`` says of it."""
        return {} if self._expires_at is None else {"expires_in": self.expires_in}

    @property
    def expires_in(self) -> float | None:
        """Seconds until the token expires."""
        return None if self._expires_at is None else round(max(self._expires_at - self._loop.time(), 0.0), 3)

    def begin(self) -> None:
        """The connection is open, and its guards have passed: close it when the token expires."""
        if self._expires_at is not None:
            self._timer = self._loop.call_at(self._expires_at, self._expire)

    async def aclose(self) -> None:
        """The connection has ended."""
        self._stop_timer()
        if self._closing is not None:
            await asyncio.wait((self._closing,))

    # -- expiry

    def _expire(self) -> None:
        envelope = self._socket.envelope
        if envelope is not None:
            envelope.take_no_more()
        self._close_when_idle(self._loop.time() + GRACE)

    def _close_when_idle(self, at_latest: float) -> None:
        """Close once no call of the client is in work."""
        if self._socket.event_reader.calls and self._loop.time() < at_latest:
            self._timer = self._loop.call_later(LOOK_EVERY, self._close_when_idle, at_latest)
            return
        self._timer = None
        self._closing = self._loop.create_task(self._close(*_EXPIRED))

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN):
                await self._socket.close(code, reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
