"""Mistakes are errors when the app is built: the error names the function, the file, the line, and the fix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from telex import (
    Controller,
    Dependency,
    FromPath,
    ImproperlyConfiguredException,
    NamedDependency,
    Parameter,
    Provide,
    Router,
    State,
    Telex,
    WebSocket,
    WebsocketListener,
    websocket,
    websocket_listener,
    websocket_stream,
)

HERE = "test_misuse.py:"


def listener(fn: Any, path: str = "/", **options: Any) -> Callable[[], Telex]:
    return lambda: Telex([websocket_listener(path, **options)(fn)])


def raw(fn: Any, **options: Any) -> Callable[[], Telex]:
    return lambda: Telex([websocket("/", **options)(fn)])


def stream(fn: Any, **options: Any) -> Callable[[], Telex]:
    return lambda: Telex([websocket_stream("/", **options)(fn)])


async def plain(data: str) -> None: ...


async def no_socket() -> None: ...


async def returns_int(socket: WebSocket) -> int:
    return 1


def sync_raw(socket: WebSocket) -> None: ...


async def raw_with_data(socket: WebSocket, data: str) -> None: ...


async def stream_with_data(data: str) -> AsyncGenerator[int, None]:
    yield 1


async def no_data(text: str) -> None: ...


async def with_request(data: str, request: Any) -> None: ...


async def unannotated(data) -> None: ...  # type: ignore[no-untyped-def]


def unannotated_hook(thing) -> None: ...  # type: ignore[no-untyped-def]


def hook_with_data(data: str) -> None: ...


async def iterates() -> AsyncIterator[int]:
    yield 1


async def bare_generator() -> AsyncGenerator:  # type: ignore[type-arg]
    yield 1


async def wrong_state(data: str, state: int) -> None: ...


async def marked(data: str, missing: NamedDependency[int]) -> None: ...


async def lock(data: str, lock: asyncio.Lock) -> None: ...


async def from_path(data: str, room: FromPath[str]) -> None: ...


async def needs(data: str, thing: int) -> None: ...


def provider(value: int = 1) -> int:
    return value


def provider_with_data(data: str) -> int:
    return len(data)


def generator() -> Iterator[int]:
    yield 1


def needs_itself(thing: int) -> int:
    return thing


async def no_manager() -> None: ...


@asynccontextmanager
async def lifespan(socket: WebSocket) -> AsyncGenerator[None, None]:
    yield


async def accepts_more(socket: WebSocket, extra: int) -> None: ...


class NoReceiver(WebsocketListener):
    path = "/"

    def other(self) -> None: ...


class ReceiverWithoutData(WebsocketListener):
    path = "/"

    async def on_receive(self, text: str) -> None: ...


class Twice(Controller):
    @websocket_listener("/a")
    async def one(self, data: str) -> None: ...

    @websocket_listener("/a")
    async def two(self, data: str) -> None: ...


SHARED = Provide(provider)

ROWS: dict[str, tuple[Callable[[], object], str]] = {
    "a low-level handler without socket": (raw(no_socket), "takes 'socket': add the parameter"),
    "a low-level handler that returns": (raw(returns_int), "returns nothing: annotate '-> None'"),
    "a sync low-level handler": (raw(sync_raw), "is asynchronous: write async def"),
    "data in a low-level handler": (raw(raw_with_data), "'data' is not available in a websocket handler"),
    "data in a stream": (stream(stream_with_data), "'data' is not available in a stream"),
    "a listener without data": (listener(no_data), "takes no 'data': add the parameter data"),
    "a listener with request": (listener(with_request), "'request' is not available in a listener"),
    "a lifespan together with hooks": (
        listener(plain, connection_lifespan=lifespan, on_accept=no_manager),
        "connection_lifespan replaces connection_accept_handler, on_accept and on_disconnect",
    ),
    "a lifespan that is none": (listener(plain, connection_lifespan=no_manager), "contextlib.asynccontextmanager"),
    "an accept handler with more parameters": (
        listener(plain, connection_accept_handler=accepts_more),
        "takes the socket and nothing else",
    ),
    "a class without receivers": (lambda: Telex([NoReceiver]), "receives nothing: write async def on_receive"),
    "a class whose on_receive has no data": (lambda: Telex([ReceiverWithoutData]), "takes no 'data'"),
    "a function that is not decorated": (lambda: Telex([plain]), "not decorated: add @websocket_listener"),  # type: ignore[list-item]
    "a parameter without annotation": (listener(unannotated), "has no annotation: write its type, or Any"),
    "a hook's parameter without annotation": (listener(plain, on_accept=unannotated_hook), "has no annotation"),
    "a stream that is no AsyncGenerator": (stream(iterates), "'-> AsyncGenerator[T, None]'"),
    "a bare AsyncGenerator": (stream(bare_generator), "'-> AsyncGenerator[T, None]'"),
    "two handlers of one name": (
        lambda: Telex([websocket_listener("/a", name="n")(plain), websocket("/b", name="n")(socket_only)]),
        "both named 'n': rename one of them",
    ),
    "a path twice in a controller": (lambda: Telex([Twice]), "can never be reached: another handler has the same path"),
    "a path twice in an app": (
        lambda: Telex([websocket_listener("/a")(plain), Router("/a", route_handlers=[websocket("/")(socket_only)])]),
        "can never be reached: another handler has the same path",
    ),
    "state that is no State": (listener(wrong_state), "the app's state, a State, not"),
    "an explicit dependency that nobody provides": (listener(marked), "add dependencies={'missing': Provide(...)}"),
    "a name that nobody provides": (listener(lock), "nothing provides parameter 'lock'"),
    "FromPath without it in the path": (listener(from_path), "is FromPath, but the path has no {room}"),
    "a cached generator": (
        listener(needs, dependencies={"thing": Provide(generator, use_cache=True)}),
        "remove use_cache=True",
    ),
    "a provider in a circle": (
        listener(needs, dependencies={"thing": Provide(needs_itself)}),
        "form a cycle: thing -> thing",
    ),
    "a hook that asks for data": (
        listener(plain, on_accept=hook_with_data),
        "has a parameter 'data', but it does not run for",
    ),
    "a provider that asks for data": (
        listener(needs, dependencies={"thing": provider_with_data}),
        "only listeners and providers with scope='message' can take 'data'",
    ),
    "an unknown mode": (listener(plain, receive_mode="json"), "receive_mode is 'text' or 'binary', not 'json'"),
    "an unknown keyword": (listener(plain, on_acept=None), "unknown option 'on_acept'"),
    "one provider under two names": (
        listener(needs, dependencies={"thing": SHARED, "other": SHARED}),
        "given as 'thing' and as 'other'",
    ),
    "a guard that is none": (listener(plain, guards=["admin"]), "write def guard(socket, handler)"),
    "a middleware that is none": (listener(plain, middleware=["session"]), "is not callable"),
    "an untyped parameter of no known form": (listener(plain, "/{a b}"), "write {name} or {name:kind}"),
    "an unknown convertor": (listener(plain, "/{a:string}"), "'string' is not a kind of parameter; the kinds are date"),
    "a doubled parameter": (listener(plain, "/{a}/{a}"), "has the parameter 'a' twice: rename one"),
    "a path parameter that is a dependency too": (
        listener(plain, "/{thing}", dependencies={"thing": provider}),
        "both a path parameter and a dependency: rename one of them",
    ),
    "a reserved name as a dependency": (listener(plain, dependencies={"state": provider}), "has a reserved name"),
    "an origin that matches nothing": (listener(plain, allowed_origins=["https://a/b"]), "matches no origin: write"),
}

WITHOUT_A_FUNCTION: dict[str, tuple[Callable[[], object], str]] = {
    "an instance of a listener class": (lambda: Telex([ReceiverWithoutData(None)]), "register the class itself"),  # type: ignore[list-item]
    "a decorator without a function": (lambda: websocket("/")(None), "it decorates a function"),  # type: ignore[arg-type]
    "a provider that cannot be called": (lambda: Provide(3), "the provider must be callable; write Provide(lambda: 3)"),  # type: ignore[arg-type]
    "a parameter with two sources": (lambda: Parameter(query="a", header="b"), "names two sources: keep one"),
}


async def socket_only(socket: WebSocket) -> None: ...


@pytest.mark.parametrize("row", ROWS)
def test_misuse_is_an_error_that_names_function_file_line_and_fix(row: str) -> None:
    build, fix = ROWS[row]
    with pytest.raises(ImproperlyConfiguredException) as caught:
        build()
    assert fix in str(caught.value)
    assert HERE in str(caught.value)


@pytest.mark.parametrize("row", WITHOUT_A_FUNCTION)
def test_misuse_that_is_not_about_a_function_names_what_it_is_about(row: str) -> None:
    build, fix = WITHOUT_A_FUNCTION[row]
    with pytest.raises(ImproperlyConfiguredException) as caught:
        build()
    assert fix in str(caught.value)


def test_a_dependency_with_a_default_needs_no_provider() -> None:
    async def fine(data: str, one: NamedDependency[int] = 1, state: State = State()) -> None: ...

    assert Telex([websocket_listener("/")(fine)]).plans
    assert Dependency(default=5).default == 5
