"""The identity of one connection, from its handshake to its expiry.

::

    the handshake has a token ──> the provider ──> guards ──> accepted ──> the timer runs <──────┐
                                                                 │                               │
       expired: nothing new is taken <───────────────────────────┘    ``auth``: the provider ────┘ and the guards
          └── calls in work have ended, or GRACE seconds have passed ──> closed with 4401

With ``in_band`` the connection is accepted first, in frames, and takes nothing but ``auth`` until the provider knows
whose token that is; guards follow, and the connection is in no registry before.

The timers are those of the event loop, which has the only clock here. A connection owns two tasks at most: one that
checks a new token, and one that closes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from telex.auth.identity import Identity, check_token
from telex.auth.provider import Identify
from telex.auth.tokens import FindToken
from telex.clock import loop_time
from telex.connection import Socket
from telex.event_reader import Supervision, as_unexpected
from telex.exception_handling import ExceptionPolicy, familiar
from telex.exceptions import (
    ClientException,
    ImproperlyConfiguredException,
    NotAuthorizedException,
    PermissionDeniedException,
    ServiceUnavailableException,
    WebSocketDisconnect,
    WebSocketException,
)
from telex.limits.keys import user_key
from telex.protocol.envelope import SUBPROTOCOL
from telex.protocol.failures import Failures
from telex.protocol.refusals import offers_frames
from telex.status_codes import CLOSE_CODE_OF_STATUS, HTTP_401_UNAUTHORIZED, HTTP_403_FORBIDDEN
from telex.types import TellAnswer

__all__ = ("Authenticator", "ConnectionIdentity", "Recheck")

Recheck: TypeAlias = Callable[[Socket], Awaitable[None]]
"""Runs the guards of a connection once more; raises what they raise."""

GRACE: Final = 10.0
"""Seconds that calls in work have after the token has expired."""
LOOK_EVERY: Final = 0.05
"""Seconds between looks whether calls in work have ended."""
CLOSE_WITHIN: Final = 5.0
"""Seconds allowed for sending a close frame: a client that does not read must not keep the connection."""
FIRST_WITHIN: Final = 10.0
"""Seconds in which the first token must have come, and be known, with ``in_band``."""
MAX_REFUSED: Final = 3
"""Tokens of ``auth`` frames in a row that are refused before the connection is closed: nobody may try out many."""
_EXPIRED: Final = "the token has expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """The option ``authenticate`` of one handler, compiled."""

    find: FindToken
    identify: Identify
    recheck: Recheck
    errors: ExceptionPolicy
    failures: Failures
    in_band: bool
    before_accept: Callable[[Socket], None] | None
    """Called with ``in_band`` before the connection is accepted."""
    timeout: float
    """Seconds that the guards of one connection may take for a new token."""

    async def authenticate(self, socket: Socket) -> None:
        """Find out who a client is, before it is accepted. A route has the identity of its shared socket.

        :raises Exception: the handshake is refused.
        """
        socket.began = loop_time()
        shared = None if socket.route is None else socket.route.authentication
        if isinstance(shared, ConnectionIdentity):
            socket.authentication = route = _RouteIdentity(self, socket, shared)
            route.take(shared.user)
            return
        if self.in_band:
            await self._accept_first(socket)
            return
        identity = await self.identify(socket, self.find(socket))
        socket.scope["user"] = identity.user
        socket.authentication = ConnectionIdentity(self, socket, identity)

    async def _accept_first(self, socket: Socket) -> None:
        """Accept, then wait for the first token.

        :raises Exception: the token is refused, or none came in time.
        """
        if not offers_frames(socket.scope):
            raise ClientException(f"this path takes tokens in frames: offer the subprotocol {SUBPROTOCOL!r}")
        if self.before_accept is not None:
            self.before_accept(socket)
        socket.authentication = awaited = ConnectionIdentity(self, socket)
        await socket.accept_first()
        limit = asyncio.timeout(FIRST_WITHIN)
        try:
            async with limit:
                await awaited.known()
        except TimeoutError:
            if not limit.expired():
                raise
            raise NotAuthorizedException("no token has come in time") from None


class _Guarded:
    """A connection whose guards run again for a new token."""

    __slots__ = ("_authenticator", "_closing", "_socket")

    def __init__(self, authenticator: Authenticator, socket: Socket) -> None:
        self._authenticator = authenticator
        self._socket = socket
        self._closing: asyncio.Task[None] | None = None

    @property
    def user(self) -> object:
        """The user of the newest token."""
        return self._socket.user

    @property
    def is_busy(self) -> bool:
        """Whether a call of the client is in work."""
        return bool(self._socket.event_reader.calls)

    async def recheck(self) -> Exception | None:
        """Run the guards; returns why they refuse."""
        limit = asyncio.timeout(self._authenticator.timeout)
        try:
            async with limit:
                await self._authenticator.recheck(self._socket)
        except Exception as exc:
            hangs = isinstance(exc, TimeoutError) and limit.expired()
            return ServiceUnavailableException("the guards take too long") if hangs else exc
        except asyncio.CancelledError as exc:
            return as_unexpected(exc)
        return None

    def take(self, user: object) -> None:
        """The user of a new token, who is the same as before."""
        self._socket.scope["user"] = user

    def take_no_more(self, why: str) -> None:
        """Refuse calls and notifies."""
        if self._socket.envelope is not None:
            self._socket.envelope.take_no_more(why)

    def take_again(self) -> None:
        """Undo :meth:`take_no_more`."""
        if self._socket.envelope is not None:
            self._socket.envelope.take_again()

    def end(self, failure: Exception) -> None:
        """Close as an exception of the handler closes."""
        self._close_by(self._authenticator.errors.end, self._socket, failure)

    def close(self, code: int, reason: str) -> None:
        """Close with this code."""
        self._close_by(self._socket.close, code, reason)

    def _close_by(self, close: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        socket = self._socket

        async def close_in_time() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN):
                    await close(*arguments)
            # The handler ends at once: what it still did would be for a client that may not have it.
            socket.event_reader.stop(socket.lost(socket.close_code or 1006, socket.close_reason))

        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(close_in_time())

    async def aclose(self) -> None:
        """The connection has ended."""
        if self._closing is not None:
            await asyncio.wait((self._closing,))


class ConnectionIdentity(_Guarded):
    """Who the client of one connection is, and until when."""

    __slots__ = (
        "_expires_at",
        "_first",
        "_is_expired",
        "_loop",
        "_refused",
        "_renewing",
        "_tell_first",
        "_timer",
        "generation",
        "routes",
    )

    def __init__(self, authenticator: Authenticator, socket: Socket, identity: Identity[Any] | None = None) -> None:
        super().__init__(authenticator, socket)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._is_expired = False
        self._refused = 0
        """Tokens that were refused in a row."""
        self._expires_at = None if identity is None else self._end_of(identity)
        self._first: asyncio.Future[None] | None = self._loop.create_future() if identity is None else None
        """Waits for the first token, with ``in_band``."""
        self._tell_first: TellAnswer | None = None
        """Answers it, as soon as the guards have passed and the handler begins."""
        self.generation: int = 0
        """How many tokens were taken after the first."""
        self.routes: set[_RouteIdentity] = set()
        """The open routes of a shared socket."""

    def _end_of(self, identity: Identity[Any]) -> float | None:
        return None if identity.expires_in is None else self._loop.time() + identity.expires_in

    @property
    def hello(self) -> dict[str, object]:
        """What ``hello`` says of it."""
        if self._first is not None:
            return {"auth": "required"}
        return {} if self._expires_at is None else {"expires_in": self.expires_in}

    @property
    def is_awaited(self) -> bool:
        """Whether no token has come yet."""
        return self._first is not None

    async def known(self) -> None:
        """Wait for the first token, and no longer than the client.

        :raises Exception: it is refused.
        """
        if self._first is not None:
            reader = self._socket.event_reader
            async with Supervision(reader):
                reader.mark_idle()  # a drain need not wait
                await self._first
            self._first = None

    @property
    def expires_in(self) -> float | None:
        """Seconds until the token expires."""
        return None if self._expires_at is None else round(max(self._expires_at - self._loop.time(), 0.0), 3)

    def begin(self) -> None:
        """The connection is open, and its guards have passed: close it when the token expires."""
        if self._tell_first is not None:
            self.take_again()
            self._tell_first(None)
            self._tell_first = None
        if self._expires_at is not None:
            self._timer = self._loop.call_at(self._expires_at, self._expire)

    async def aclose(self) -> None:
        """The connection has ended."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait((self._renewing,))
        self._stop_timer()
        await super().aclose()

    # -- expiry

    def _expire(self) -> None:
        self._is_expired = True
        for each in (self, *self.routes):
            each.take_no_more(_EXPIRED)
        self._close_when_idle(self._loop.time() + GRACE)

    def _close_when_idle(self, at_latest: float) -> None:
        """Close once no call of the client is in work, and no token is being checked."""
        is_busy = self._renewing is not None or any(each.is_busy for each in (self, *self.routes))
        if is_busy and self._loop.time() < at_latest:
            self._timer = self._loop.call_later(LOOK_EVERY, self._close_when_idle, at_latest)
            return
        self._timer = None
        self.close(CLOSE_CODE_OF_STATUS + HTTP_401_UNAUTHORIZED, _EXPIRED)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- a new token

    def renew(self, token: str, tell: TellAnswer) -> bool:
        """Check a new token beside the handler, then call ``tell``; false while another is being checked."""
        if self._renewing is not None or self._tell_first is not None or self._closing is not None:
            return False
        self._renewing = self._loop.create_task(self._renew(token, tell))
        return True

    async def _renew(self, token: str, tell: TellAnswer) -> None:
        try:
            if self._first is not None:
                await self._take_first(self._first, token, tell)
                return
            failure, closes = await self._check(token)
            if failure is None:
                tell(None)
                return
            if not closes:
                self._renewing = None  # the client may send another as soon as it has the answer
            self._tell_failure(failure, tell)
            if closes:
                await self._flush()
                self.end(failure)
        except WebSocketDisconnect:
            pass  # the client has left
        finally:
            self._renewing = None

    def _tell_failure(self, failure: Exception, tell: TellAnswer) -> None:
        """Answer a token that is refused."""
        told = self._authenticator.failures.of(familiar(failure))
        tell((told.code, told.message))

    async def _flush(self) -> None:
        """Send the answer, before anything closes the connection."""
        if self._socket.envelope is not None:
            await self._socket.envelope.flush()

    async def _take_first(self, first: asyncio.Future[None], token: str, tell: TellAnswer) -> None:
        """Take the token that the connection waits for; a refusal is raised where it waits, and closes."""
        self._socket.began = loop_time()
        try:
            identity = await self._authenticator.identify(self._socket, check_token(token))
        except Exception as exc:
            failure = exc
        except asyncio.CancelledError as exc:
            failure = as_unexpected(exc)
        else:
            self.take(identity.user)
            self._expires_at, self._tell_first = self._end_of(identity), tell
            if not first.done():
                first.set_result(None)
            return
        self._tell_failure(failure, tell)
        await self._flush()
        if not first.done():
            first.set_exception(failure)

    async def _check(self, token: str) -> tuple[Exception | None, bool]:
        """Take the identity of a new token; returns why it is refused, and whether that closes the connection."""
        socket = self._socket
        try:
            identity = await self._authenticator.identify(socket, check_token(token))
            if not _is_same(identity.user, socket.user):
                raise PermissionDeniedException("the token is another user's")
        except Exception as exc:
            return exc, self._closes(familiar(exc))
        except asyncio.CancelledError as exc:
            error = as_unexpected(exc)
            return error, self._closes(error)
        self._take(identity)
        failure = await self.recheck()
        if failure is None:
            for route in tuple(self.routes):
                await route.recheck_or_end()
        return failure, True

    def _closes(self, error: Exception) -> bool:
        """Whether a refusal by the provider closes. What may be over in a while leaves the client its old token."""
        status = getattr(error, "status_code", None)
        self._refused += status == HTTP_401_UNAUTHORIZED
        if status == HTTP_403_FORBIDDEN or isinstance(error, WebSocketException) or self._refused >= MAX_REFUSED:
            return True
        self._authenticator.errors.report(self._socket, error)
        return False

    def _take(self, identity: Identity[Any]) -> None:
        self._refused = 0
        self.generation += 1
        self._stop_timer()
        self._expires_at = self._end_of(identity)
        for each in (self, *self.routes):
            each.take(identity.user)
            if self._is_expired:
                each.take_again()
        self._is_expired = False
        self.begin()


class _RouteIdentity(_Guarded):
    """The identity of a route: that of its shared socket, whose tokens renew it."""

    __slots__ = ("_checked", "_checking", "_shared")

    def __init__(self, authenticator: Authenticator, socket: Socket, shared: ConnectionIdentity) -> None:
        super().__init__(authenticator, socket)
        self._shared = shared
        self._checked = shared.generation
        self._checking: asyncio.Task[None] | None = None

    @property
    def hello(self) -> dict[str, object]:
        """Nothing: the socket's ``hello`` says it."""
        return {}

    @property
    def is_awaited(self) -> bool:
        """A shared socket opens no route before."""
        return False

    @property
    def expires_in(self) -> float | None:
        """As of the shared socket."""
        return self._shared.expires_in

    def begin(self) -> None:
        """The route is open. If a new token came since its guards began, they run again."""
        self._shared.routes.add(self)
        if self._checked != self._shared.generation:
            self.take(self._shared.user)
            self._checking = asyncio.get_running_loop().create_task(self.recheck_or_end())

    async def recheck_or_end(self) -> None:
        """Run the guards; a refusal closes the route."""
        failure = await self.recheck()
        if failure is not None:
            self.end(failure)

    def take_no_more(self, why: str) -> None:
        """Refuse calls and notifies; plain messages cannot be refused."""
        super().take_no_more(why)
        if self._socket.envelope is None:
            self.close(CLOSE_CODE_OF_STATUS + HTTP_401_UNAUTHORIZED, why)

    def renew(self, token: str, tell: TellAnswer) -> bool:
        """Not called: ``auth`` frames belong to the shared socket."""
        return False

    async def aclose(self) -> None:
        """The route has ended."""
        self._shared.routes.discard(self)
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait((self._checking,))
        await super().aclose()


def _is_same(new: object, old: object) -> bool:
    """Whether a new token is of the same user."""
    try:
        return user_key(new) == user_key(old)
    except ImproperlyConfiguredException:  # users without a name: only the app's own comparison can tell
        return new == old
