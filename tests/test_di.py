"""Dependencies: scopes, order, cleanup on every path, caching, and what is an error when the app is built."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Annotated, Any, Literal, NewType, get_args, get_origin

import msgspec
import pytest
from starlette.requests import HTTPConnection

from telex import (
    Dependency,
    ImproperlyConfiguredException,
    NamedDependency,
    Provide,
    Router,
    State,
    Telex,
    WebSocket,
    WebSocketException,
    WebsocketListener,
    receives,
    websocket,
    websocket_listener,
    websocket_stream,
)
from telex.calls import Cache
from telex.datastructures import Headers, QueryParams
from telex.layers import LayerOptions
from telex.types import Scope
from tests.contract.servers import KINDS, ServerKind
from tests.support.live import asked, asked_json, connected, denied, ending, serving, soon, talking


class Client:
    """A class as a provider: its parameters are injected."""

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self) -> int:
        return self.base + 100


async def open_session(room: str) -> AsyncIterator[str]:
    yield f"session of {room}"


async def answer(fn: Any, path: str = "/", route: str = "/", **options: Any) -> Any:
    """What a listener of one message answers."""
    async with talking(Telex([websocket_listener(route, **options)(fn)]), path) as client:
        return await asked_json(client, "x")


# -- every kind of provider


async def test_every_kind_of_provider() -> None:
    def sync() -> int:
        return 1

    async def coroutine(sync: int) -> int:
        return sync + 1

    def generator(coroutine: int) -> Iterator[int]:
        yield coroutine + 1

    async def async_generator(generator: int) -> AsyncIterator[int]:
        yield generator + 1

    class Callable:
        async def __call__(self, async_generator: int) -> int:
            return async_generator + 1

    async def listen(data: str, called: int, made: Client, partial: int, lambda_: int) -> list[int]:
        return [called, made.base, partial, lambda_]

    providers: dict[str, Any] = {
        "sync": sync,
        "coroutine": Provide(coroutine),
        "generator": Provide(generator),
        "async_generator": async_generator,
        "called": Provide(Callable()),
        "base": lambda: 7,
        "made": Provide(Client),
        "partial": Provide(functools.partial(needs_b, b=9)),
        "lambda_": Provide(lambda: 10),
    }
    assert await answer(listen, dependencies=providers) == [5, 7, 9, 10]


async def test_a_provider_beside_the_parameter() -> None:
    """As in FastAPI."""

    async def listen(
        data: str, session: Annotated[str, Provide(open_session)], other: Annotated[int, Provide(gives)]
    ) -> Any:
        return [session, other]

    assert await answer(listen, "/blue", "/{room:str}") == ["session of blue", 1]


async def test_providers_take_all_that_handlers_take() -> None:
    async def provider(
        socket: WebSocket,
        state: State,
        scope: dict[str, Any],
        headers: Headers,
        cookies: dict[str, str],
        query: QueryParams,
        room: str,
        page: int,
    ) -> list[Any]:
        return [socket.path_params, state.name, scope["type"], headers["x-a"], cookies, query["page"], room, page]

    async def listen(
        data: str, all_of_it: list[Any], headers: dict[str, str], query: dict[str, str], state: Any
    ) -> Any:
        assert isinstance(headers, dict)
        assert isinstance(query, dict)
        assert state.name == "app"
        return all_of_it

    handler = websocket_listener("/{room:str}", dependencies={"all_of_it": provider})(listen)
    app = Telex([handler], state=State({"name": "app"}))
    async with talking(app, "/blue?page=2", headers={"X-A": "b", "Cookie": "c=d"}) as client:
        assert await asked_json(client, "x") == [
            {"room": "blue"},
            "app",
            "websocket",
            "b",
            {"c": "d"},
            "2",
            "blue",
            2,
        ]


# -- layers and sharing


async def test_the_nearest_layer_wins_and_inner_ones_may_need_outer_ones() -> None:
    async def listen(data: str, name: str, greeting: str) -> list[str]:
        return [name, greeting]

    def greeting(name: str, mark: str) -> str:
        return f"hello {name}{mark}"

    handler = websocket_listener("/", dependencies={"name": lambda: "handler"})(listen)
    router = Router(route_handlers=[handler], dependencies={"mark": lambda: "!", "name": lambda: "router"})
    app = Telex([router], dependencies={"greeting": greeting, "mark": lambda: "?", "name": lambda: "app"})
    async with talking(app) as client:
        assert await asked_json(client, "x") == ["handler", "hello handler!"]


async def test_a_dependency_is_made_once_a_connection_however_many_need_it() -> None:
    made: list[int] = []

    def base() -> int:
        made.append(len(made))
        return made[-1]

    async def listen(data: str, base: int, a: int, b: int) -> list[int]:
        return [base, a, b]

    dependencies: dict[str, Any] = {"base": base, "a": lambda base: base, "b": lambda base: base}
    for name in ("a", "b"):
        dependencies[name].__annotations__ = {"base": int}
    app = Telex([websocket_listener("/", dependencies=dependencies)(listen)])
    async with serving(app) as running:
        for number in range(2):
            async with connected(running) as client:
                assert await asked_json(client, "x") == [number] * 3
                assert await asked_json(client, "y") == [number] * 3
    assert made == [0, 1]


async def test_hooks_and_the_listener_share_what_is_made_for_the_connection() -> None:
    log: list[Any] = []
    ended = asyncio.Event()

    async def resource() -> AsyncIterator[object]:
        yield (made := object())
        log.append(("closed", made))
        ended.set()

    def on_accept(resource: object) -> None:
        log.append(("accept", resource))

    def on_disconnect(resource: object) -> None:
        log.append(("disconnect", resource))

    @websocket_listener("/", dependencies={"resource": resource}, on_accept=on_accept, on_disconnect=on_disconnect)
    def listen(data: str, resource: object) -> str:
        log.append(("listen", resource))
        return data

    async with talking(Telex([listen])) as client:
        assert await asked(client, "x") == "x"
    await soon(ended.wait())
    assert [what for what, _ in log] == ["accept", "listen", "disconnect", "closed"]
    assert len({id(resource) for _, resource in log}) == 1


async def test_context_variables_that_a_dependency_sets_are_seen_by_the_handler() -> None:
    variable: ContextVar[str] = ContextVar("variable")

    async def set_it() -> None:
        variable.set("set")

    async def listen(data: str, set_it: None) -> str:
        return variable.get()

    async with talking(Telex([websocket_listener("/", dependencies={"set_it": set_it})(listen)])) as client:
        assert await asked(client, "x") == "set"


# -- the cache


async def test_use_cache_makes_it_once_for_the_app_however_many_wait() -> None:
    made = 0
    several = asyncio.Event()

    async def slow() -> int:
        nonlocal made
        made += 1
        await several.wait()
        return made

    @websocket_listener("/", dependencies={"value": Provide(slow, use_cache=True)})
    async def listen(data: str, value: int) -> int:
        return value

    async with serving(Telex([listen])) as running:

        async def ask() -> Any:
            async with connected(running) as client:
                return await asked_json(client, "x")

        asking = [asyncio.create_task(ask()) for _ in range(5)]
        await asyncio.sleep(0.02)
        several.set()
        assert await soon(asyncio.gather(*asking)) == [1] * 5
        assert await ask() == 1
    other_app = Telex([listen])
    async with talking(other_app) as client:
        assert await asked_json(client, "x") == 2


async def test_a_failure_is_not_cached() -> None:
    attempts: list[int] = []

    def fragile() -> int:
        attempts.append(1)
        if len(attempts) == 1:
            raise WebSocketException(4000)
        return len(attempts)

    @websocket_listener("/", dependencies={"value": Provide(fragile, use_cache=True)})
    async def listen(data: str, value: int) -> int:
        return value

    async with serving(Telex([listen])) as running:
        assert (await denied(running)).status == 403
        async with connected(running) as client:
            assert await asked_json(client, "x") == 2


def test_use_cache_starts_afresh_with_each_lifespan() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    async def resource() -> int:
        made.append(asyncio.get_running_loop())
        return len(made)

    @websocket_listener("/", dependencies={"resource": Provide(resource, use_cache=True)})
    async def listen(data: str, resource: int) -> int:
        assert made[-1] is asyncio.get_running_loop()
        return resource

    app = Telex([listen])

    async def ask() -> list[str | bytes]:
        async with serving(app) as running, connected(running) as one, connected(running) as other:
            return [await asked(one, "x"), await asked(other, "x")]

    async def two_lifespans() -> list[str | bytes]:
        async with app.lifespan():
            first = await ask()
        async with app.lifespan():
            return first + await ask()

    assert asyncio.run(two_lifespans()) == ["1", "1", "2", "2"]
    assert asyncio.run(ask()) == ["3", "3"]


# -- threads


async def test_sync_to_thread_moves_calls_and_generators() -> None:
    threads: list[bool] = []
    main = threading.get_ident()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note() -> int:
        threads.append(threading.get_ident() != main)
        return 1

    def generator() -> Iterator[int]:
        note()
        yield 2
        note()
        loop.call_soon_threadsafe(ended.set)

    async def coroutine() -> int:
        return note()

    @websocket_listener(
        "/",
        dependencies={
            "a": Provide(note, sync_to_thread=True),
            "b": Provide(generator, sync_to_thread=True),
            "c": Provide(coroutine, sync_to_thread=True),
        },
    )
    async def listen(data: str, a: int, b: int, c: int) -> list[int]:
        return [a, b, c]

    async with talking(Telex([listen])) as client:
        assert await asked_json(client, "x") == [1, 2, 1]
    await soon(ended.wait())
    assert threads == [True, True, False, True]


# -- message scope

BOTH = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in {"uvicorn-websockets", "telex"}], ids=lambda kind: kind.name
)


@BOTH
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}, {"sync_to_thread": True}])
@pytest.mark.parametrize("reply", [True, False])
async def test_an_answered_message_finishes_its_cleanup_although_the_client_leaves(
    kind: ServerKind, options: dict[str, Any], reply: bool
) -> None:
    log: list[str] = []
    committing, commit, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def transaction() -> AsyncIterator[int]:
        yield 1
        committing.set()
        await commit.wait()
        log.append("committed")

    async def connection() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("closed")
            ended.set()

    def answer(data: str, it: int, transaction: int) -> str | None:
        return data if reply else None

    async def answer_async(data: str, it: int, transaction: int) -> str | None:
        return answer(data, it, transaction)

    dependencies = {"it": Provide(connection), "transaction": Provide(transaction, scope="message")}
    fn = answer if "sync_to_thread" in options else answer_async
    app = Telex([websocket_listener("/", dependencies=dependencies, **options)(fn)])
    async with serving(app, kind) as running:
        async with connected(running) as client:
            await client.send("x")
            await soon(committing.wait())
        await asyncio.sleep(0.1)  # for what must not happen
        assert log == []
        commit.set()
        await soon(ended.wait())
    assert log == ["committed", "closed"]


async def test_message_scope_sees_the_message_and_closes_after_the_reply() -> None:
    log: list[str] = []

    async def connection() -> AsyncIterator[str]:
        log.append("open")
        yield "connection"
        log.append("close")

    async def transaction(connection: str, data: Any) -> AsyncIterator[str]:
        log.append(f"begin {data}")
        try:
            yield f"{connection} {data}"
        except ValueError:
            log.append(f"rollback {data}")
            raise
        log.append(f"commit {data}")

    def audit(transaction: str) -> str:
        return transaction.upper()

    class Watched(WebSocket):
        async def send_data(self, data: str | bytes, mode: Any = "text", encoding: str = "utf-8") -> None:
            log.append(f"reply {data!r}")
            await super().send_data(data, mode, encoding)

    @websocket_listener(
        "/",
        websocket_class=Watched,
        dependencies={
            "connection": connection,
            "transaction": Provide(transaction, scope="message"),
            "audit": Provide(audit, scope="message"),
        },
        exception_handlers={ValueError: lambda socket, exc: "handled"},
    )
    async def listen(data: str, audit: str) -> str:
        if data == "bad":
            raise ValueError
        return audit

    async with talking(Telex([listen])) as client:
        assert await asked(client, "a") == "CONNECTION A"
        assert await asked(client, "bad") == "handled"
    assert log[:7] == [
        "open",
        "begin a",
        "reply 'CONNECTION A'",
        "commit a",
        "begin bad",
        "rollback bad",
        "reply 'handled'",
    ]


async def test_nothing_is_sent_for_none_nor_after_ones_own_close_with_message_scope_either() -> None:
    @websocket_listener("/", dependencies={"one": Provide(gives, scope="message")})
    async def listen(data: str, one: int, socket: WebSocket) -> str | None:
        if data == "close":
            await socket.close(4000)
        return None if data == "quiet" else data

    async with talking(Telex([listen])) as client:
        await client.send("quiet")
        assert await asked(client, "loud") == "loud"
        await client.send("close")
        assert (await ending(client))[0] == 4000


async def test_a_sync_listener_with_message_scope_and_one_in_a_thread() -> None:
    made: list[int] = []

    def number() -> int:
        made.append(1)
        return len(made)

    def listen(data: str, number: int) -> int:
        return number

    for in_thread in (False, True):
        made.clear()
        handler = websocket_listener(
            "/", dependencies={"number": Provide(number, scope="message")}, sync_to_thread=in_thread
        )(listen)
        async with talking(Telex([handler])) as client:
            assert [await asked_json(client, "x") for _ in range(3)] == [1, 2, 3]


async def test_a_receiver_resolves_only_what_it_takes_itself() -> None:
    made: list[str] = []

    def costly() -> int:
        made.append("costly")
        return 1

    class Two(WebsocketListener):
        path = "/"
        dependencies = {"costly": Provide(costly, scope="message")}  # noqa: RUF012

        @receives
        def text(self, data: str, costly: int) -> str:
            return data

        @receives
        def number(self, data: int) -> int:
            return data

    async with talking(Telex([Two])) as client:
        assert await asked(client, "5") == "5"
        assert made == []
        assert await asked(client, '"x"') == "x"
    assert made == ["costly"]


def listener_with_provider(received: Any, provided: Any) -> Telex:
    """An app whose listener receives ``received``. The provider of its dependency's dependency takes ``provided``."""

    def measure(data: Any) -> int:
        return len(str(data))

    def judge(size: int) -> str:
        return f"{size} characters"

    async def listen(data: Any, verdict: str) -> str:
        return verdict

    measure.__annotations__["data"] = provided
    listen.__annotations__["data"] = received
    providers = {"size": Provide(measure, scope="message"), "verdict": Provide(judge, scope="message")}
    return Telex([websocket_listener("/", dependencies=providers)(listen)])


@pytest.mark.parametrize(
    ("received", "provided"),
    [
        (str, int),
        (Any, int),
        (int | str, int),
        (int | None, int),
        (list[int], list[str]),
        (dict[str, int], Mapping[str, str]),
        (Literal["a", "b"], Literal["a"]),
        (int, Literal[1]),
        (str, Annotated[str, msgspec.Meta(max_length=3)]),
    ],
)
def test_a_provider_that_declares_another_type_of_message_is_an_error(received: Any, provided: Any) -> None:
    says = (
        r"'data' of .*measure \(tests/test_di.py:\d+\) is annotated .*, but it gets the messages of"
        r" .*listen \(tests/test_di.py:\d+\), which are .*: annotate both the same"
    )
    with pytest.raises(ImproperlyConfiguredException, match=says):
        listener_with_provider(received, provided)


@pytest.mark.parametrize(
    ("received", "provided"),
    [
        (str, str),
        (str, Any),
        (str, object),
        (int, int | str),
        (int | str, int | str | None),
        (int, float),
        (None, None),
        (bool, int),
        (list[int], list),
        (list[int], Sequence[int | None]),
        (Literal["a"], Literal["a", "b"]),
        (Literal["a"], str),
        (Annotated[str, msgspec.Meta(max_length=3)], str),
        (Annotated[str, msgspec.Meta(max_length=3)], Annotated[str, msgspec.Meta(max_length=3)]),
        (NewType("Size", int), int),
    ],
)
def test_a_provider_may_declare_a_wider_type_of_message(received: Any, provided: Any) -> None:
    listener_with_provider(received, provided)


def test_each_receiver_of_a_class_is_compared_with_the_providers_that_it_takes() -> None:
    def measure(data: str) -> int:
        return len(data)

    class Two(WebsocketListener):
        path = "/"
        dependencies = {"size": Provide(measure, scope="message")}  # noqa: RUF012

        @receives
        def text(self, data: str, size: int) -> int:
            return size

        @receives
        def number(self, data: int) -> int:
            return data

    class Mismatched(Two):
        @receives
        def number(self, data: int, size: int) -> int:  # type: ignore[override]
            return data

    Telex([Two])
    with pytest.raises(ImproperlyConfiguredException, match=r"measure .* gets the messages of .*Mismatched.number"):
        Telex([Mismatched])


# -- cleanup on every path


@pytest.mark.parametrize("how", ["return", "raise", "close", "leave", "abort", "before accept"])
async def test_cleanup_runs_exactly_once_in_reverse_order_however_it_ends(how: str) -> None:
    log: list[str] = []
    ended = asyncio.Event()

    async def first() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            log.append("first")
            ended.set()

    def second(first: int) -> Iterator[int]:
        try:
            yield 2
        finally:
            log.append("second")

    @websocket("/", dependencies={"first": first, "second": second})
    async def handle(socket: WebSocket, second: int) -> None:
        if how == "before accept":
            raise WebSocketException(4000)
        await socket.accept()
        await socket.receive_text()
        if how == "raise":
            raise WebSocketException(4000)
        if how == "close":
            await socket.close(4001)
        if how in {"leave", "abort"}:
            await asyncio.Event().wait()

    async with serving(Telex([handle])) as running:
        if how == "before accept":
            assert (await denied(running)).status == 403
        else:
            async with connected(running) as client:
                await client.send("go")
                if how == "leave":
                    await client.close()
                elif how == "abort":
                    client.transport.abort()
                else:
                    assert (await ending(client))[0] == {"return": 1000, "raise": 4000, "close": 4001}[how]
        await soon(ended.wait())
    assert log == ["second", "first"]


async def test_a_cleanup_that_raises_still_frees_the_rest_and_its_code_counts() -> None:
    log: list[str] = []

    async def outer() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            log.append("outer")

    async def inner(outer: int) -> AsyncIterator[int]:
        yield 2
        raise WebSocketException(4222, "cleanup failed")

    @websocket("/", dependencies={"outer": outer, "inner": inner})
    async def handle(socket: WebSocket, inner: int) -> None:
        await socket.accept()

    async with talking(Telex([handle])) as client:
        assert await ending(client) == (4222, "cleanup failed")
    assert log == ["outer"]


async def test_a_dependency_that_swallows_the_exception_does_not_hide_it() -> None:
    """The generator ends quietly: the exception still counts, as with contextlib's generators that return."""

    async def swallow() -> AsyncIterator[int]:
        try:
            yield 1
        except WebSocketException:
            return

    def swallow_too() -> Iterator[int]:
        try:
            yield 1
        except WebSocketException:
            return

    for provider in (swallow, swallow_too):

        @websocket("/", dependencies={"provider": provider})
        async def handle(socket: WebSocket, provider: int) -> None:
            await socket.accept()
            raise WebSocketException(4001, "seen")

        async with talking(Telex([handle])) as client:
            assert await ending(client) == (4001, "seen")


@pytest.mark.parametrize("in_thread", [False, True])
async def test_a_generator_that_yields_not_or_twice_is_an_error_that_names_it(
    in_thread: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def never() -> Iterator[int]:
        yield from ()

    async def never_async() -> AsyncIterator[int]:
        return
        yield 1  # type: ignore[unreachable]

    def twice() -> Iterator[int]:
        yield 1
        yield 2

    async def twice_async() -> AsyncIterator[int]:
        yield 1
        yield 2

    for provider, complaint in [
        (never, "never .* ended without a yield"),
        (never_async, "never_async .* ended without a yield"),
        (twice, "twice .* yields more than once"),
        (twice_async, "twice_async .* yields more than once"),
    ]:
        caplog.clear()

        @websocket("/", dependencies={"value": Provide(provider, sync_to_thread=in_thread)})
        async def handle(socket: WebSocket, value: int) -> None: ...

        async with serving(Telex([handle])) as running:
            assert (await denied(running)).status in {403, 500}
        error = next(record.exc_info[1] for record in caplog.records if record.exc_info)
        assert isinstance(error, RuntimeError)
        assert re.search(complaint, str(error))


def taking(fn: Any, name: str, annotation: Any) -> Any:
    """``fn``, which takes any keywords, as a function of one parameter."""
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    fn.__signature__ = inspect.Signature([parameter])
    fn.__annotations__ = {name: annotation}
    return fn


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("query", str),
        ("query", list[str]),
        ("headers", str),
        ("headers", int | None),
        ("cookies", str),
        ("scope", str),
        ("socket", str),
        ("state", dict),
    ],
)
@pytest.mark.parametrize("route", ["/", "/{query:str}"])
def test_a_reserved_name_with_another_type_is_refused(name: str, annotation: Any, route: str) -> None:
    async def provide(**values: Any) -> None: ...

    taking(provide, name, annotation)

    async def listen(data: str, made: None) -> None: ...

    handler = websocket_listener(route, dependencies={"made": provide})(listen)
    with pytest.raises(ImproperlyConfiguredException, match=rf"'{name}' of .* is a reserved name: .*rename"):
        Telex([handler])


class MyState(State):
    a: int


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("query", QueryParams),
        ("query", dict[str, str]),
        ("query", Mapping[str, str]),
        ("headers", Headers | None),
        ("headers", dict | None),
        ("cookies", Mapping[str, str]),
        ("scope", Scope),
        ("scope", object),
        ("socket", WebSocket[Any, Any, MyState]),
        ("socket", HTTPConnection),
        ("state", MyState),
        ("state", Any),
    ],
)
async def test_a_reserved_name_with_a_type_that_it_can_have(name: str, annotation: Any) -> None:
    async def kind_of(**values: Any) -> str:
        return type(values[name]).__name__

    app = websocket_listener("/", dependencies={"made": taking(kind_of, name, annotation)})
    async with talking(Telex([app(gives_made)])) as client:
        made = await asked(client, "x")
    wants_dict = dict in {annotation, get_origin(annotation), *get_args(annotation)}
    assert (made == "dict") is (wants_dict or name in {"cookies", "scope"})


async def gives_made(data: str, made: str) -> str:
    return made


# -- defaults


async def test_defaults_when_no_layer_provides() -> None:
    async def listen(
        data: str,
        own: NamedDependency[Any] = "own",
        other: Any = "other",
        marked: Annotated[Any, Dependency(default="marked")] = "parameter",
    ) -> list[str]:
        return [own, other, marked]

    assert await answer(listen) == ["own", "other", "parameter"]

    async def constant(data: str, marked: Annotated[Any, Dependency(default="marked")]) -> str:
        return str(marked)

    async with talking(Telex([websocket_listener("/")(constant)])) as client:
        assert await asked(client, "x") == "marked"


# -- errors when the app is built


def needs_b(b: int) -> int:
    return b


def needs_a(a: int) -> int:
    return a


def gives(value: int = 1) -> int:
    return value


def generated() -> Iterator[int]:
    yield 1


def asks_for_data(data: str) -> str:
    return data


WRONG: dict[str, tuple[LayerOptions, str]] = {
    "nothing provides it": (
        {},
        r"nothing provides parameter 'thing' of .*listen \(tests/test_di.py:\d+\): add dependencies=\{'thing': Provide",
    ),
    "a circle": (
        {"dependencies": {"thing": needs_b, "b": needs_a, "a": needs_b}},
        r"dependencies form a cycle: b -> a -> b \(needs_a \(.*remove one of these dependencies",
    ),
    "a reserved name": (
        {"dependencies": {"socket": gives}},
        r"dependency 'socket' has a reserved name \(cookies, data, headers, query, scope, socket, state\)",
    ),
    "a path parameter's name": (
        {"dependencies": {"room": gives}},
        "'room' is both a path parameter and a dependency: rename one",
    ),
    "a cached generator": (
        {"dependencies": {"thing": Provide(generated, use_cache=True)}},
        r"generated \(.*\) is a generator, which needs a cleanup: remove use_cache=True",
    ),
    "a cached one that needs a message": (
        {"dependencies": {"thing": Provide(asks_for_data, use_cache=True, scope="message")}},
        r"asks_for_data \(.*\) has a parameter 'data', but it does not run for a message",
    ),
    "data for a connection": (
        {"dependencies": {"thing": asks_for_data}},
        r"asks_for_data \(.*\) has a parameter 'data', but it does not run for a message: only listeners",
    ),
    "a message in a connection": (
        {"dependencies": {"thing": needs_b, "b": Provide(gives, scope="message")}},
        r"needs_b \(.*\) lives as long as the connection, but 'b' \(gives .*\) lives for one message: give both",
    ),
    "one object twice": (
        {"dependencies": dict.fromkeys(["thing", "other"], Provide(gives))},
        "one Provide object is given as 'thing' and as 'other': write one Provide",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_known_when_the_app_is_built(case: str) -> None:
    options, complaint = WRONG[case]

    async def listen(data: str, thing: Any) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=complaint):
        Telex([websocket_listener("/{room:str}", **options)(listen)])


def test_state_must_be_a_state() -> None:
    async def listen(data: str, state: int) -> None: ...

    with pytest.raises(
        ImproperlyConfiguredException,
        match=r"'state' of .*listen .*: the app's state, a State, not .*int.*: annotate",
    ):
        Telex([websocket_listener("/")(listen)])


def test_a_stream_and_a_hook_see_no_message_scope() -> None:
    message = {"thing": Provide(gives, scope="message")}

    @websocket_stream("/", dependencies=message)
    async def stream(thing: int) -> AsyncGenerator[int, None]:
        yield thing

    with pytest.raises(
        ImproperlyConfiguredException, match=r"stream \(.*\) lives as long as the connection, but 'thing'"
    ):
        Telex([stream])

    def on_accept(thing: int) -> None: ...

    async def listen(data: str) -> None: ...

    with pytest.raises(
        ImproperlyConfiguredException, match=r"on_accept \(.*\) lives as long as the connection, but 'thing'"
    ):
        Telex([websocket_listener("/", dependencies=message, on_accept=on_accept)(listen)])


def test_provide_checks_its_arguments() -> None:
    with pytest.raises(ImproperlyConfiguredException, match=r"Provide\(3\): the provider must be callable; write"):
        Provide(3)  # type: ignore[arg-type]
    with pytest.raises(
        ImproperlyConfiguredException, match=r"scope='request'\): the scope is 'connection' or 'message'"
    ):
        Provide(gives, scope="request")  # type: ignore[arg-type]
    assert repr(Provide(gives, scope="message")).startswith("Provide(gives (tests/test_di.py:")


async def test_two_that_want_the_same_cached_value_at_once_get_one() -> None:
    cache, made, proceed = Cache(), [], asyncio.Event()

    async def make() -> int:
        made.append(1)
        await proceed.wait()
        return len(made)

    asking = [asyncio.create_task(cache.get("key", make)) for _ in range(3)]
    await asyncio.sleep(0)
    proceed.set()
    assert await soon(asyncio.gather(*asking)) == [1, 1, 1]
    assert await cache.get("key", make) == 1
