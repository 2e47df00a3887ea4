"""The synchronous client and session: they call the asynchronous ones in a background thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType, UnionType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload

from telex.testing.blocking_calls import Items, PendingCall
from telex.testing.calling import Credit
from telex.testing.client import OFFERED_EXTENSIONS, AsyncTestClient
from telex.testing.clock import TestClock
from telex.testing.cookies import Cookies
from telex.testing.handshake import Headers, QueryParams
from telex.testing.http import RequestOptions
from telex.testing.matching import Predicate
from telex.testing.multiplex import CREDIT, AsyncMultiplexTestSession
from telex.testing.portal import Portal
from telex.testing.session import AsyncWebSocketTestSession
from telex.testing.tasks import GRACE
from telex.types import ASGIApp, Message, Mode, Scope

if TYPE_CHECKING:
    import httpx

__all__ = ("MultiplexTestSession", "TestClient", "WebSocketTestSession")

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])

ADVANCE_WITHIN: Final = 60.0
"""Real seconds for the work of an app while a test advances its clock."""


class WebSocketTestSession:
    """One connection, for synchronous tests: ``with client.websocket_connect("/path") as session``.

    The methods are those of :class:`AsyncWebSocketTestSession`, which documents them and their exceptions.
    """

    def __init__(self, session: AsyncWebSocketTestSession, portal: Portal) -> None:
        """Made by ``TestClient.websocket_connect``."""
        self._session = session
        self._portal = portal

    @property
    def accepted_subprotocol(self) -> str | None:
        """The subprotocol that the app chose."""
        return self._session.accepted_subprotocol

    @property
    def extra_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers that the app added to its accept."""
        return self._session.extra_headers

    @property
    def scope(self) -> Scope:
        """A copy of the connection's current scope; its headers are the request's, then those of the accept."""
        return self._session.scope

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._portal)
            self._call(self._session.connect())
            undo.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            self._call(self._session.__aexit__(exc_type, exc, tb))
        finally:
            self._portal.__exit__(exc_type, exc, tb)

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, text or bytes, until the connection is closed."""
        messages = aiter(self._session)
        while True:
            message = self._call(anext(messages, None))
            if message is None:
                return
            yield message

    @property
    def hello(self) -> dict[str, Any]:
        """The first frame of the app on ``telex.v1``."""
        return self._session.hello

    @overload
    def call(
        self,
        data: object,
        answer: type[T],
        timeout: float | None = ...,
        *,
        key: str | None = ...,
        frame: Mapping[str, object] = ...,
    ) -> T: ...
    @overload
    def call(
        self,
        data: object,
        answer: Any = ...,
        timeout: float | None = ...,
        *,
        key: str | None = ...,
        frame: Mapping[str, object] = ...,
    ) -> Any: ...
    def call(
        self,
        data: object,
        answer: Any = Any,
        timeout: float | None = None,
        *,
        key: str | None = None,
        frame: Mapping[str, object] = {},
    ) -> Any:
        """Call the app on ``telex.v1``, and return its answer as the type ``answer``."""
        return self._call(self._session.call(data, answer, timeout, key=key, frame=frame), 2 * (timeout or 0))

    def begin(
        self,
        data: object,
        timeout: float | None = None,
        *,
        key: str | None = None,
        frame: Mapping[str, object] = {},
    ) -> PendingCall:
        """Send a call and do not wait for its answer."""
        begun = self._session.begin(data, timeout, key=key, frame=frame)
        return PendingCall(self._call(begun, timeout), self._call)

    @overload
    def stream(
        self, data: object, item: type[T], *, credit: Credit = ..., frame: Mapping[str, object] = ...
    ) -> Items[T]: ...
    @overload
    def stream(
        self, data: object, item: Any = ..., *, credit: Credit = ..., frame: Mapping[str, object] = ...
    ) -> Items[Any]: ...
    def stream(
        self, data: object, item: Any = Any, *, credit: Credit = "auto", frame: Mapping[str, object] = {}
    ) -> Items[Any]:
        """Call a handler that answers in parts: iterate to read them as the type ``item``."""
        return Items(self._session.stream(data, item, credit=credit, frame=frame), self._call)

    def notify(self, data: object, timeout: float | None = None) -> None:
        """Send a message that wants no answer, on ``telex.v1``."""
        self._call(self._session.notify(data, timeout), timeout)

    @overload
    def answer(self, kind: F) -> F: ...
    @overload
    def answer(self, kind: Any, reply: object) -> None: ...
    def answer(self, kind: Any, reply: object = ...) -> Any:
        """Answer calls of the server whose data is a ``kind``, until the end of the session."""
        return self._session.answer(kind, reply)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection as the client."""
        self._call(self._session.close(code, reason))

    def send(self, data: object, mode: Mode | None = None) -> None:
        """Send ``data``: a str as text, bytes as binary, anything else as JSON."""
        self._call(self._session.send(data, mode))

    def send_text(self, data: str) -> None:
        """Send a text message."""
        self._call(self._session.send_text(data))

    def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message."""
        self._call(self._session.send_bytes(data))

    def send_json(self, data: object, mode: Mode = "text") -> None:
        """Send ``data`` as JSON."""
        self._call(self._session.send_json(data, mode))

    def send_msgpack(self, data: object) -> None:
        """Send ``data`` as MessagePack, in a binary message."""
        self._call(self._session.send_msgpack(data))

    def send_raw(self, event: Message) -> None:
        """Pass an ASGI event to the app unchanged."""
        self._call(self._session.send_raw(event))

    def receive(self, timeout: float | None = None, *, block: bool = True) -> Message:
        """The app's next ``websocket.send`` event."""
        return self._call(self._session.receive(timeout, block=block), timeout)

    def receive_text(self, timeout: float | None = None, *, block: bool = True) -> str:
        """The next message; it must be text."""
        return self._call(self._session.receive_text(timeout, block=block), timeout)

    def receive_bytes(self, timeout: float | None = None, *, block: bool = True) -> bytes:
        """The next message; it must be binary."""
        return self._call(self._session.receive_bytes(timeout, block=block), timeout)

    def receive_json(self, mode: Mode = "text", timeout: float | None = None, *, block: bool = True) -> Any:
        """The next message, decoded from JSON."""
        return self._call(self._session.receive_json(mode, timeout, block=block), timeout)

    def receive_msgpack(self, timeout: float | None = None, *, block: bool = True) -> Any:
        """The next message, decoded from MessagePack; it must be binary."""
        return self._call(self._session.receive_msgpack(timeout, block=block), timeout)

    @overload
    def expect(  # type: ignore[overload-overlap] # a class is callable too, but it comes first
        self, expected: type[T], timeout: float | None = ..., *, mode: Mode = ...
    ) -> T: ...
    @overload
    def expect(self, expected: UnionType, timeout: float | None = ..., *, mode: Mode = ...) -> Any: ...
    @overload
    def expect(self, expected: Predicate, timeout: float | None = ..., *, mode: Mode = ...) -> str | bytes: ...
    @overload
    def expect(self, expected: T, timeout: float | None = ..., *, mode: Mode = ...) -> T: ...
    def expect(self, expected: object, timeout: float | None = None, *, mode: Mode = "text") -> Any:
        """The next message; it must match ``expected``: a type, a predicate or a value."""
        return self._call(self._session.expect(expected, timeout, mode=mode), timeout)

    def refute(self, expected: object = None, timeout: float = 0.1, *, mode: Mode = "text") -> None:
        """Check that no ``expected`` message (``None``: no message) comes for ``timeout`` seconds."""
        self._call(self._session.refute(expected, timeout, mode=mode), timeout)

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        return self._portal.call(coroutine, _outer_limit(max(timeout or 0, self._session.timeout)))


class MultiplexTestSession:
    """A socket that carries routes: ``with client.multiplex("/socket") as socket``."""

    def __init__(self, socket: AsyncMultiplexTestSession, portal: Portal) -> None:
        """Made by ``TestClient.multiplex``."""
        self.session: WebSocketTestSession = WebSocketTestSession(socket.session, portal)
        """The socket itself, for frames that concern no route."""
        self._socket = socket
        self._portal = portal

    @property
    def hello(self) -> dict[str, Any]:
        """The first frame of the socket."""
        return self._socket.hello

    def route(
        self, path: str, params: QueryParams | None = None, *, credit: int = CREDIT, timeout: float | None = None
    ) -> WebSocketTestSession:
        """A session with a route; ``with`` opens it."""
        return WebSocketTestSession(self._socket.route(path, params, credit=credit, timeout=timeout), self._portal)

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._portal)
            self._portal.call(self._socket.__aenter__(), _outer_limit(self._socket.session.timeout))
            undo.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            limit = 2 * _outer_limit(self._socket.session.timeout)
            self._portal.call(self._socket.__aexit__(exc_type, exc, tb), limit)
        finally:
            self._portal.__exit__(exc_type, exc, tb)


class TestClient:
    """Calls an ASGI app from synchronous tests; the app runs on one event loop in one background thread.

    ::

        with TestClient(app) as client, client.websocket_connect("/echo") as session:
            session.send("hello")
            session.expect("hello")

    Without ``with`` the app's lifespan does not run, and the thread runs only during a session or a request. The
    parameters and methods are those of :class:`AsyncTestClient`, which documents them. Leaving the client ends all its
    tasks and threads.
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
        """See :class:`AsyncTestClient`."""
        self._client = AsyncTestClient(
            app,
            base_url,
            timeout=timeout,
            headers=headers,
            cookies=cookies,
            root_path=root_path,
            raise_server_exceptions=raise_server_exceptions,
            max_queued=max_queued,
            clock=clock,
        )
        self._portal = Portal()

    @property
    def app(self) -> ASGIApp:
        """The app under test."""
        return self._client.app

    @property
    def cookies(self) -> Cookies:
        """The cookies that are sent with handshakes and requests."""
        return self._client.cookies

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(self._portal)
            self._portal.call(self._client.__aenter__(), _outer_limit(self._client.timeout))
            undo.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            self._portal.call(self._client.__aexit__(exc_type, exc, tb), _outer_limit(self._client.timeout))
        finally:
            self._portal.close()

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass for the app, without waiting; the client has a ``clock``."""
        self._portal.call(self._client.advance(seconds), ADVANCE_WITHIN)

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
    ) -> WebSocketTestSession:
        """A session with ``url``; ``with`` connects it."""
        session = self._client.websocket_connect(
            url, subprotocols, params, headers, cookies, timeout, extensions=extensions
        )
        return WebSocketTestSession(session, self._portal)

    def multiplex(
        self,
        url: str,
        params: QueryParams | None = None,
        headers: Headers | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> MultiplexTestSession:
        """A socket of a ``Multiplex``; ``with`` connects it, and its ``route(path)`` makes sessions."""
        return MultiplexTestSession(self._client.multiplex(url, params, headers, cookies, timeout), self._portal)

    def request(self, method: str, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to an HTTP request."""
        limit = _outer_limit(max(options.get("timeout", 0), self._client.timeout))
        with self._portal as portal:
            return portal.call(self._client.request(method, url, **options), limit)

    def get(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``GET``."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``POST``."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``PUT``."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``PATCH``."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """The response to ``DELETE``."""
        return self.request("DELETE", url, **options)


def _outer_limit(timeout: float) -> float:
    """The portal's limit for a call whose own limit is ``timeout``.

    It is longer than the call's own limit: a handshake or a close waits at most twice its timeout, plus the grace for
    cancelled tasks. Only a blocked event loop reaches this limit.
    """
    return 2 * timeout + 5 * GRACE
