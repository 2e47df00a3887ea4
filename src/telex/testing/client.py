"""The asynchronous test client: runs an app's lifespan, opens WebSocket sessions and sends HTTP requests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, Unpack

from telex.exceptions import ConnectionStateError
from telex.protocol.envelope import SUBPROTOCOL
from telex.testing.clock import TestClock, time_runs
from telex.testing.cookies import Cookies
from telex.testing.handshake import DENIAL_EXTENSION, Headers, QueryParams, http_url, target_url, websocket_scope
from telex.testing.http import HTTPCaller, RequestOptions
from telex.testing.lifespan import AppLifespan
from telex.testing.multiplex import AsyncMultiplexTestSession
from telex.testing.session import AsyncWebSocketTestSession, SessionOptions
from telex.testing.tasks import checked_timeout, settled, unmasked
from telex.types import ASGIApp

if TYPE_CHECKING:
    import httpx

__all__ = ("OFFERED_EXTENSIONS", "AsyncTestClient")

OFFERED_EXTENSIONS: Final[Mapping[str, Mapping[str, object]]] = {DENIAL_EXTENSION: {}}


class AsyncTestClient:
    """Calls an ASGI app on the event loop of the test.

    ::

        async with AsyncTestClient(app) as client, client.websocket_connect("/echo") as session:
            await session.send_text("hello")
            await session.expect("hello")

    Entering the client starts the app's lifespan; leaving it closes the open sessions and shuts the app down. Without
    ``async with`` the lifespan does not run, but sessions and requests work.
    """

    __test__ = False  # pytest must not collect this class

    def __init__(
        self,
        app: ASGIApp,
        base_url: str = "http://testserver",
        *,
        timeout: float = 5.0,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        root_path: str = "",
        raise_server_exceptions: bool = True,
        max_queued: int = 64,
        clock: TestClock | None = None,
    ) -> None:
        """Configure the client; ``async with`` starts the app's lifespan.

        :param app: the app under test.
        :param base_url: the URL that paths are relative to; with ``https``, WebSocket connections use ``wss``.
        :param timeout: the default timeout of every wait, in seconds.
        :param headers: sent with every handshake and request.
        :param cookies: the initial cookies; the app's ``Set-Cookie`` headers add to them.
        :param root_path: the scope's ``root_path``; it is not added to paths.
        :param raise_server_exceptions: raise the app's exceptions in the test; else the test gets what a client gets.
        :param max_queued: the limit of queued messages in each direction; a send above it blocks.
        :param clock: time stands still for the app, and passes by :meth:`advance`. It serves one client at a time.
        """
        self.app = app
        self.base_url = base_url
        self.timeout: float = checked_timeout(timeout)
        self.headers: Headers = headers or {}
        self.cookies: Cookies = Cookies(cookies)
        self._clock = clock
        self._root_path = root_path
        self._raise_server_exceptions = raise_server_exceptions
        self._max_queued = max_queued
        self._sessions: set[AsyncWebSocketTestSession] = set()
        self._lifespan: AppLifespan | None = None
        self._http: HTTPCaller | None = None
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        lifespan = AppLifespan(self.app, self.timeout)
        async with AsyncExitStack() as exits:
            if self._clock is not None:
                await exits.enter_async_context(self._clock)
            with time_runs():
                await lifespan.start()
            exits.push_async_callback(self._exits.aclose)
            self._lifespan, self._http = lifespan, None
            exits.push_async_callback(self._forget)
            exits.push_async_callback(lifespan.stop)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._exits.push_async_callback(self._close_sessions)
        with time_runs():
            await unmasked(self._exits.aclose(), exc)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for the app, without waiting: :meth:`TestClock.advance`.

        :raises ConnectionStateError: the client has no clock, or is not entered.
        """
        if self._clock is None:
            raise ConnectionStateError("advance: the client has no clock: write clock=TestClock() where it is made")
        await self._clock.advance(seconds)

    def websocket_connect(
        self,
        url: str,
        subprotocols: Sequence[str] | None = None,
        params: QueryParams | None = None,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float | None = None,
        *,
        extensions: Mapping[str, Mapping[str, object]] = OFFERED_EXTENSIONS,
    ) -> AsyncWebSocketTestSession:
        """A session with ``url``; ``async with`` or ``await`` connects it.

        :param url: a path under ``base_url``, or an absolute URL; it may have a query.
        :param subprotocols: the subprotocols that the client offers, in order of preference.
        :param params: query parameters in addition to those in ``url``.
        :param headers: sent with the client's headers; they replace those of the same name.
        :param cookies: sent with this handshake only; they replace the client's cookies of the same name.
        :param timeout: the default timeout of the session in seconds; ``None`` means the client's.
        :param extensions: the scope's ``extensions``; ``{}`` simulates a server without denial responses.
        """
        target = target_url(self.base_url, url, params)
        address = http_url(target)
        scope = websocket_scope(
            target,
            headers=[self.headers, headers or {}],
            subprotocols=subprotocols or (),
            cookie=self.cookies.header(address, cookies),
            root_path=self._root_path,
            extensions=extensions,
            state=self._state(),
        )
        options = SessionOptions(
            timeout=self.timeout if timeout is None else checked_timeout(timeout),
            raise_server_exceptions=self._raise_server_exceptions,
            max_queued=self._max_queued,
            on_accept=lambda received: self.cookies.learn(address, received),
        )
        return AsyncWebSocketTestSession(self.app, scope, options, self._sessions)

    def multiplex(
        self,
        url: str,
        params: QueryParams | None = None,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AsyncMultiplexTestSession:
        """A socket of a ``Multiplex``; ``async with`` connects it, and its ``route(path)`` makes sessions."""
        session = self.websocket_connect(url, [SUBPROTOCOL], params, headers, cookies, timeout)
        return AsyncMultiplexTestSession(session)

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """Send an HTTP request and return the response; needs httpx (the extra ``testing``).

        :raises MissingDependencyException: httpx is not installed.
        :raises TimeoutError: the app did not finish the response in time.
        """
        if self._http is None:
            self._http = HTTPCaller(
                self.app,
                base_url=self.base_url,
                headers=self.headers,
                cookies=self.cookies,
                root_path=self._root_path,
                state=self._state(),
                raise_server_exceptions=self._raise_server_exceptions,
            )
            self._exits.push_async_callback(self._http.aclose)
        return await self._http.request(method, url, options, self.timeout)

    async def get(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``GET``."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``POST``."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``PUT``."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``PATCH``."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``DELETE``."""
        return await self.request("DELETE", url, **options)

    async def _close_sessions(self) -> None:
        outcomes = await asyncio.gather(*[settled(session.aclose()) for session in self._sessions])
        failures = [failure for _, failure in outcomes if failure is not None]
        if failures:
            raise failures[0] if len(failures) == 1 else BaseExceptionGroup("several sessions failed", failures)

    async def _forget(self) -> None:
        self._lifespan = None
        self._http = None

    def _state(self) -> dict[str, object]:
        """The state that the app's lifespan set for connections; empty if no lifespan runs."""
        return {} if self._lifespan is None else self._lifespan.state
