"""Decorated functions: the outermost decides whether a result is awaited, the innermost its parameters and its type."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import fastapi
import pydantic
import pytest

from telex import ImproperlyConfiguredException, Parameter, Provide, Telex, WebSocket, websocket, websocket_listener
from tests.contract.servers import ServerKind
from tests.support.live import asked, asked_json, heard, talking
from tests.support.wrappers import made_async, passing

KINDS = [ServerKind("uvicorn-websockets"), ServerKind("telex")]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    found: ServerKind = request.param
    return found


def made_sync(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            fn(*args, **kwargs).send(None)
        except StopIteration as exc:
            return exc.value
        raise AssertionError("the coroutine waits")

    return wrapper


def collecting(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return list(fn(*args, **kwargs))

    return wrapper


def upper(data: str) -> str:
    return data.upper()


async def upper_later(data: str) -> str:
    return data.upper()


def promised(data: str) -> Awaitable[str]:
    return upper_later(data)


class Upper:
    async def __call__(self, data: str, times: int = 1) -> str:
        return data.upper() * times


LISTENERS: list[Callable[..., Any]] = [
    made_async(upper),
    made_sync(upper_later),
    passing(upper_later),
    passing(passing(upper_later)),
    passing(made_async(upper)),
    functools.partial(passing(upper_later)),
    functools.lru_cache(upper),
    Upper(),
    functools.partial(Upper(), times=1),
    promised,
]


@pytest.mark.parametrize("in_thread", [False, True], ids=["inline", "in a thread"])
@pytest.mark.parametrize("listen", LISTENERS)
async def test_a_decorated_listener_answers_what_its_outermost_function_gives(
    kind: ServerKind, listen: Callable[..., Any], in_thread: bool
) -> None:
    handler = websocket_listener("/", sync_to_thread=in_thread)(listen)
    async with talking(Telex([handler]), kind=kind) as client:
        assert await asked(client, "hi") == "HI"
        assert await asked(client, "ho") == "HO"


async def coroutine() -> str:
    return "value"


def plain() -> str:
    return "value"


def numbers() -> Iterator[int]:
    yield from (1, 2)


PROVIDERS: list[tuple[Callable[..., Any], object]] = [
    (made_async(plain), "value"),
    (made_sync(coroutine), "value"),
    (passing(coroutine), "value"),
    (lambda: asyncio.sleep(0, "value"), "value"),
    (collecting(numbers), [1, 2]),
]


@pytest.mark.parametrize("options", [{}, {"scope": "message"}, {"sync_to_thread": True}, {"use_cache": True}])
@pytest.mark.parametrize(("provider", "value"), PROVIDERS)
async def test_a_decorated_provider_gives_its_value(
    provider: Callable[..., Any], value: object, options: dict[str, Any]
) -> None:
    async def listen(data: str, made: Any) -> Any:
        return {"made": made}

    app = Telex([websocket_listener("/", dependencies={"made": Provide(provider, **options)})(listen)])
    async with talking(app) as client:
        assert await asked_json(client, "x") == {"made": value}


async def test_a_generator_behind_a_plain_function_is_cleaned_up() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()

    @passing
    def opened() -> Iterator[str]:
        yield "sync"
        ended.put_nowait("sync")

    @passing
    async def opened_later() -> AsyncIterator[str]:
        yield "async"
        ended.put_nowait("async")

    async def listen(data: str, one: str, two: str) -> str:
        return f"{one} {two}"

    app = Telex([websocket_listener("/", dependencies={"one": opened, "two": opened_later})(listen)])
    async with talking(app) as client:
        assert await asked(client, "x") == "sync async"
        assert ended.empty()
    async with asyncio.timeout(9):
        assert [await ended.get(), await ended.get()] == ["async", "sync"]


@pytest.mark.parametrize("decorate", [contextlib.contextmanager, contextlib.asynccontextmanager])
def test_a_context_manager_as_a_provider_is_refused(decorate: Callable[..., Any]) -> None:
    async def listen(data: str, made: Any) -> None: ...

    app = websocket_listener("/", dependencies={"made": decorate(numbers)})(listen)
    with pytest.raises(ImproperlyConfiguredException, match=r"numbers \(.*:\d+\) is a context manager: remove the dec"):
        Telex([app])


async def test_a_decorated_hook_and_a_decorated_raw_handler_run() -> None:
    seen: list[str] = []

    @made_async
    def on_accept(socket: WebSocket) -> None:
        seen.append("accepted")

    @websocket_listener("/listen", on_accept=on_accept)
    async def listen(data: str) -> list[str]:
        return seen

    async def send(socket: WebSocket) -> None:
        await socket.send_text("sent")

    app = Telex([listen, websocket("/raw")(passing(send))])
    async with talking(app, "/listen") as client:
        assert await asked_json(client, "x") == ["accepted"]
    async with talking(app, "/raw") as client:
        assert await heard(client) == "sent"


# -- classes as providers


class Settings(pydantic.BaseModel):
    page: int = 1
    names: list[str] = pydantic.Field(default_factory=lambda: ["default"])


@pydantic.dataclasses.dataclass
class Paging:
    page: int = 1


class New:
    page: int

    def __new__(cls, page: int) -> New:
        made = object.__new__(cls)
        made.page = page
        return made


class Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class WithMetaclass(metaclass=Meta):
    def __init__(self, page: int) -> None:
        self.page = page


@pytest.mark.parametrize("provider", [Settings, Paging, New, WithMetaclass])
async def test_a_class_of_any_making_is_a_provider(provider: Any) -> None:
    async def listen(data: str, made: Any) -> list[Any]:
        return [made.page, getattr(made, "names", None)]

    app = Telex([websocket_listener("/", dependencies={"made": provider})(listen)])
    async with talking(app, "/?page=3") as client:
        assert (await asked_json(client, "x"))[0] == 3


# -- marks of other frameworks


async def given() -> int:
    return 1


async def with_depends(data: str, x: int = fastapi.Depends(given)) -> None: ...


async def with_depends_as_metadata(data: str, x: Annotated[int, fastapi.Depends(given)]) -> None: ...


async def with_query(data: str, x: Annotated[int, fastapi.Query(gt=0)]) -> None: ...


async def with_parameter_as_default(data: str, x: int = Parameter(query="y")) -> None: ...  # type: ignore[assignment]


async def with_field_as_default(data: str, x: int = pydantic.Field(gt=0)) -> None: ...


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        (with_depends, r"has the default Depends\(...\) of fastapi.* write Annotated\[..., Provide\(function\)\]"),
        (with_depends_as_metadata, r"has Depends\(...\) of fastapi.* write Annotated\[..., Provide\(function\)\]"),
        (with_query, r"has Query\(...\) of fastapi.* write FromQuery"),
        (with_parameter_as_default, r"has the default Parameter\(...\) of telex.* write Annotated\[..., Parameter"),
        (with_field_as_default, r"has the default FieldInfo\(...\) of pydantic.* write Annotated\[..., Field"),
    ],
)
def test_a_mark_that_would_say_nothing_is_refused(listen: Callable[..., Any], says: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=rf"'x' of with_\w+ \(.*test_calls.py:\d+\) {says}"):
        Telex([websocket_listener("/")(listen)])
