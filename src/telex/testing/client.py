"""The asynchronous test client: an app's lifespan around the test, WebSocket sessions and HTTP requests within."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, Unpack

from telex.testing.cookies import Cookies
from telex.testing.handshake import DENIAL_EXTENSION, Headers, QueryParams, http_url, target_url, websocket_scope
from telex.testing.http import HTTPCaller, RequestOptions
from telex.testing.lifespan import AppLifespan
from telex.testing.session import AsyncWebSocketTestSession, SessionOptions
from telex.testing.tasks import checked_timeout, settled, unmasked
from telex.types import ASGIApp

if TYPE_CHECKING:
    import httpx

__all__ = ("OFFERED_EXTENSIONS", "AsyncTestClient")

OFFERED_EXTENSIONS: Final[Mapping[str, Mapping[str, object]]] = {DENIAL_EXTENSION: {}}


class AsyncTestClient:
    """Talks to an ASGI app on the test's own event loop.

    ::

        async with AsyncTestClient(app) as client, client.websocket_connect("/echo") as session:
            await session.send_text("hello")
            await session.expect("hello")

    Entering starts the app's lifespan, leaving ends the sessions that are still open and shuts the app down. Without
    ``async with`` the lifespan does not run; sessions and requests work all the same.
    """

    __test__ = False  # pytest: not a class of tests

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
    ) -> None:
        """Describe the client. Entering it starts the app's lifespan.

        :param app: the app under test.
        :param base_url: what paths are under; ``https`` makes WebSocket connections ``wss``.
        :param timeout: the default limit of every wait, in seconds.
        :param headers: sent with every handshake and request.
        :param cookies: the cookies to begin with; the app's own ``Set-Cookie`` headers are kept too.
        :param root_path: the scope's ``root_path``; paths are sent as they are written, with it or without.
        :param raise_server_exceptions: raise the app's exceptions in the test; else the test sees what a client would.
        :param max_queued: how many messages each direction may hold; a send then waits.
        """
        self.app = app
        self.base_url = base_url
        self.timeout: float = checked_timeout(timeout)
        self.headers: Headers = headers or {}
        self.cookies: Cookies = Cookies(cookies)
        self._root_path = root_path
        self._raise_server_exceptions = raise_server_exceptions
        self._max_queued = max_queued
        self._sessions: set[AsyncWebSocketTestSession] = set()
        self._lifespan: AppLifespan | None = None
        self._http: HTTPCaller | None = None
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        lifespan = AppLifespan(self.app, self.timeout)
        await lifespan.start()
        self._lifespan, self._http = lifespan, None
        self._exits.push_async_callback(self._forget)
        self._exits.push_async_callback(lifespan.stop)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._exits.push_async_callback(self._close_sessions)
        await unmasked(self._exits.aclose(), exc)

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
        """A connection to ``url``, made when it is entered (``async with``) or awaited.

        :param url: a path under ``base_url``, or absolute; it may have a query.
        :param subprotocols: those that the client offers, the preferred one first.
        :param params: query parameters beside those in ``url``.
        :param headers: sent beside the client's, in place of those of the same name.
        :param cookies: sent beside the client's, in place of those of the same name, with this handshake only.
        :param timeout: the session's default limit in seconds; the client's if ``None``.
        :param extensions: the scope's ``extensions``; ``{}`` is a server that has no denial responses.
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

    async def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to an HTTP request; httpx sends it (the extra ``testing``).

        :raises MissingDependencyException: httpx is not installed.
        :raises TimeoutError: the app did not finish it in time.
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
        """The state that the app's lifespan left for connections; empty where none runs."""
        return {} if self._lifespan is None else self._lifespan.state
