"""What the page for Litestar's users states of channels, tried: Litestar's side by Litestar, Telex's by Telex."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import litestar
import pytest
from litestar.channels import ChannelsPlugin
from litestar.channels import Subscriber as LitestarSubscriber
from litestar.channels.backends.memory import MemoryChannelsBackend

import telex.channels
from telex import Telex, WebSocket, websocket_listener
from telex import renamed as renamed_module
from telex.channels import Channels, Event, Keep, Policy, Subscriber
from telex.channels.backends.redis import RedisBackend
from telex.exceptions import (
    ChannelsException,
    ConcurrencyError,
    ImproperlyConfiguredException,
    NotAuthorizedException,
    WebSocketException,
)
from telex.testing import AsyncTestClient, WebSocketDenied
from tests.channels.brokers import Broker
from tests.channels.conftest import take_data, within
from tests.docs.pages import table

PAGE = "topics/from-litestar.md"
LITESTARS = Path(litestar.__file__).parent / "channels"


def rows(heading: str) -> dict[str, str]:
    return dict(table(PAGE, heading))


# -- names


@pytest.mark.parametrize("name", sorted(renamed_module.INSTEAD.keys() - {"SkipValidation"}))
def test_the_page_and_the_errors_know_the_same_names(name: str) -> None:
    assert re.search(rf"^class {name}\b", "\n".join(each.read_text() for each in LITESTARS.rglob("*.py")), re.MULTILINE)
    assert any(name in left for left in rows("Channels"))


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        ("telex.channels", "ChannelsPlugin", "`from telex import Channels`"),
        ("telex.channels.backends.memory", "MemoryChannelsBackend", r'Channels\("memory://", ...\), and history=Keep'),
        ("telex.channels.backends", "RedisChannelsPubSubBackend", r'Channels\("redis://host"'),
        ("telex.channels.backends", "RedisChannelsStreamBackend", r"history=Keep\(n, seconds=60\)"),
        ("telex.channels.backends", "PsycoPgChannelsBackend", r'Channels\("postgresql://'),
        ("telex.channels.backends", "AsyncPgChannelsBackend", r'Channels\("postgresql://'),
    ],
)
def test_importing_litestars_name_says_what_to_write(module: str, name: str, says: str) -> None:
    with pytest.raises(ImportError, match=f"{name} is Litestar's; in Telex write .*{says}") as raised:
        exec(f"from {module} import {name}")  # noqa: S102 - an import statement asks in its own way
    assert raised.value.name == module


def test_other_names_are_missing_as_anywhere() -> None:
    assert not hasattr(telex.channels, "Chanels")
    with pytest.raises(ImportError, match=r"cannot import name 'Chanels' from 'telex\.channels'"):
        exec("from telex.channels import Chanels")  # noqa: S102
    assert importlib.util.find_spec("telex.channels.backends.redis.single")
    assert set(telex.channels.__all__) <= set(dir(telex.channels))


def test_every_option_of_litestars_plugin_is_one_of_the_hub() -> None:
    assert set(inspect.signature(ChannelsPlugin).parameters) <= set(inspect.signature(Channels).parameters)
    public = {name for name in vars(ChannelsPlugin) if not name.startswith("_")}
    assert {name for name in public if not hasattr(ours(), name)} == set(renamed_module.INSTEAD_OF_METHODS)
    calls = {name for name in vars(LitestarSubscriber) if not name.startswith("_")}
    assert {name for name in calls if not hasattr(Subscriber(1, "close"), name)} == {"put", "put_nowait"}


def test_an_app_without_the_plugin_is_told_of_it() -> None:
    @websocket_listener("/")
    async def publish(data: str, channels: Channels) -> None: ...

    with pytest.raises(
        ImproperlyConfiguredException, match=r"'channels' of .*publish .*: add plugins=\[Channels\(.*\)\] to the app"
    ):
        Telex([publish])

    @websocket_listener("/")
    async def other(data: str, lock: asyncio.Lock) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match=r"'lock' of .*other .*: add dependencies="):
        Telex([other])


# -- constructing


@asynccontextmanager
async def litestars(*, history: int = 0, **options: Any) -> AsyncIterator[ChannelsPlugin]:
    async with ChannelsPlugin(MemoryChannelsBackend(history=history), channels=["a", "b"], **options) as plugin:
        yield plugin


def ours(**options: Any) -> Channels:
    return Channels("memory://", channels=["a", "b"], **options)


async def waiting(subscriber: LitestarSubscriber) -> list[str]:
    """What waits for a subscriber of Litestar's."""
    await asyncio.sleep(0.01)  # its plugin hands events on in a task, and tells nobody when
    events = subscriber.iter_events()
    return [(await anext(events)).decode() for _ in range(subscriber.qsize)]


async def test_history_stays_when_the_last_subscriber_leaves() -> None:
    async with litestars(history=3) as plugin:
        await plugin.unsubscribe(await plugin.subscribe("a"))
        theirs = await plugin.subscribe("a")
        await plugin.wait_published("x", "a")
        await plugin.unsubscribe(theirs)
        assert (await plugin.subscribe("a", history=3)).qsize == 0
    async with ours(history=Keep(3)) as hub:
        subscriber = await hub.subscribe("a")
        await hub.publish("a", "x")
        await hub.unsubscribe(subscriber)
        assert await take_data(await hub.subscribe("a", history=3), 1) == ["x"]
    assert Keep(20) == Keep(size=20, seconds=300)


@pytest.mark.parametrize(("strategy", "ours_is"), [("backoff", "drop_newest"), ("dropleft", "drop_oldest")])
async def test_the_old_names_of_strategies_work(strategy: Any, ours_is: Policy) -> None:
    options = {"subscriber_max_backlog": 2, "subscriber_backlog_strategy": strategy}
    async with litestars(**options) as plugin:
        theirs = await plugin.subscribe("a")
        for number in range(5):
            await plugin.wait_published(str(number), "a")
        kept = await waiting(theirs)
    async with ours(**options) as hub:
        old, new = await hub.subscribe("a"), await hub.subscribe("a", backlog_strategy=ours_is)
        for number in range(5):
            await hub.publish("a", str(number))
        assert await take_data(old, 2) == await take_data(new, 2) == kept


async def test_the_defaults_differ() -> None:
    defaults = {name: each.default for name, each in inspect.signature(ChannelsPlugin).parameters.items()}
    assert defaults["subscriber_max_backlog"] is None
    assert defaults["subscriber_backlog_strategy"] == "backoff"
    with pytest.raises(ImproperlyConfiguredException, match="every queue is bounded"):
        ours(subscriber_max_backlog=None)
    async with ours() as hub:
        subscriber = await hub.subscribe("a")
        for number in range(1001):
            await hub.publish("a", str(number))
        with pytest.raises(WebSocketException, match="too slow: 1000 events wait") as closed:
            await anext(subscriber)
    assert closed.value.code == 1013


async def test_a_prefix_in_place_of_key_prefix(running_broker: Callable[[str], Broker]) -> None:
    backend = RedisBackend(running_broker("valkey").url, prefix="shop:")
    async with Channels(backend, channels=["a", "A"]) as hub, hub.subscribe("a") as events:
        await hub.publish(["A", "a"], "x")
        assert [item.channel for item in [await within(anext(events))] if isinstance(item, Event)] == ["a"]


async def test_generated_handlers_and_their_options() -> None:
    async def refuse(socket: WebSocket) -> None:
        if "token" not in socket.query_params:
            raise NotAuthorizedException

    hub = ours(
        history=Keep(5),
        create_ws_route_handlers=True,
        ws_handler_base_path="/live",
        ws_handler_send_history=2,
        ws_send_mode="binary",
        ws_handler_options={"guards": [refuse]},
    )
    async with AsyncTestClient(Telex(plugins=[hub])) as client:
        for number in range(3):
            await hub.publish("a", str(number))
        with pytest.raises(WebSocketDenied):
            await client.websocket_connect("/live/a")
        async with client.websocket_connect("/live/a?token=1") as session:
            await session.expect(b"1")
            await session.expect(b"2")
    with pytest.raises(ImproperlyConfiguredException, match="ws_handler_send_history"):
        ours(create_ws_route_handlers=True, ws_handler_send_history=2)


async def test_a_subscriber_class_is_made_with_backlog_and_strategy() -> None:
    made: list[tuple[Any, ...]] = []

    class Mine(Subscriber):
        def __init__(self, max_backlog: int, backlog_strategy: Policy) -> None:
            made.append((max_backlog, backlog_strategy))
            super().__init__(max_backlog, backlog_strategy)

    async with ours(subscriber_class=Mine, subscriber_max_backlog=7) as hub:
        assert isinstance(await hub.subscribe("a"), Mine)
    assert set(made) == {(7, "close")}
    assert list(inspect.signature(LitestarSubscriber).parameters) == ["plugin", "max_backlog", "backlog_strategy"]


# -- calls


async def test_publishing() -> None:
    plugin, hub = ChannelsPlugin(MemoryChannelsBackend(), channels=["a"]), ours()
    with pytest.raises(RuntimeError):
        plugin.publish("x", "a")
    with pytest.raises(ChannelsException):
        await hub.publish("a", "x")
    async with hub, hub.subscribe("a") as events:
        await hub.publish("a", "1")
        hub.publish_nowait("a", "2")
        assert await take_data(events, 2) == ["1", "2"]
        with pytest.raises(AttributeError, match=r"`await channels\.publish\(channel, data\)`: the channel first"):
            hub.wait_published  # type: ignore[attr-defined]  # noqa: B018 - the look-up itself fails


async def test_publish_in_litestars_order() -> None:
    async with ours() as hub:
        for data in ({"n": 1}, b"bytes", "text", [1, 2]):
            with pytest.raises(ChannelsException, match=r"is no channel|takes the channel first"):
                await hub.publish(data, "a")  # type: ignore[arg-type]
    async with Channels("memory://", arbitrary_channels_allowed=True) as hub, hub.subscribe("text") as events:
        await hub.publish("text", "a")
        assert await take_data(events, 1) == ["a"]


async def test_subscribing() -> None:
    async with litestars() as plugin:
        theirs = await plugin.subscribe("a")
        with pytest.raises(KeyError):
            await plugin.unsubscribe(theirs, "unknown")
    async with ours(history=Keep(5)) as hub:
        await hub.publish("a", "1")
        with pytest.raises(AttributeError, match=r"`async with channels\.subscribe\(channel\) as events`"):
            hub.start_subscription  # type: ignore[attr-defined]  # noqa: B018 - the look-up itself fails
        async with hub.subscribe("a", history=5) as events:
            assert await take_data(events, 1) == ["1"]
        assert hub.statistics().subscribers == 0
        subscriber = await hub.subscribe("a")
        for name in ("b", "unknown"):
            with pytest.raises(ChannelsException):
                await hub.unsubscribe(subscriber, name)
        await hub.unsubscribe(subscriber, "a")
        assert [item async for item in subscriber] == []
    async with ours() as hub:
        with pytest.raises(ChannelsException, match="nothing is kept"):
            await hub.subscribe("a", history=5)


async def test_put_subscriber_history_comes_before_what_waits() -> None:
    async with litestars(history=5) as plugin:
        theirs = await plugin.subscribe("a")
        for data in ("1", "2"):
            await plugin.wait_published(data, "a")
        await asyncio.sleep(0.01)
        await plugin.put_subscriber_history(theirs, "a", 1)
        assert await waiting(theirs) == ["1", "2", "2"]
    async with ours(history=Keep(5), subscriber_max_backlog=2) as hub:
        subscriber = await hub.subscribe("a")
        for data in ("1", "2"):
            await hub.publish("a", data)
        await hub.put_subscriber_history(subscriber, "a", 1)
        assert await take_data(subscriber, 3) == ["2", "1", "2"]


async def test_run_in_background() -> None:
    async with ours() as hub:
        subscriber = await hub.subscribe("a")
        heard: list[bytes] = []

        async def on_event(data: bytes) -> None:
            heard.append(data)
            if data == b"fail":
                raise ValueError("mine")

        async with subscriber.run_in_background(on_event):
            assert subscriber.is_running
            with pytest.raises(RuntimeError) as refused:
                async with subscriber.run_in_background(on_event):
                    pass
            assert isinstance(refused.value, ConcurrencyError)
            await hub.publish("a", "1")
        assert (heard, subscriber.is_running, subscriber.qsize) == ([b"1"], False, 0)
        with pytest.raises(ValueError, match="mine"):
            async with subscriber.run_in_background(on_event):
                await hub.publish("a", "fail")


async def test_handlers_that_stay_in_litestar_publish() -> None:
    @websocket_listener("/echo")
    async def echo(data: str) -> str:
        return data

    hub = ours()
    live = Telex([echo], plugins=[hub])

    @litestar.post("/news")
    async def news() -> None:
        await hub.publish("a", {"n": 1})

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with live.lifespan():
            yield

    app = litestar.Litestar([news], lifespan=[lifespan], logging_config=None)
    async with app.lifespan(), hub.subscribe("a") as events:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as browser:
            assert (await browser.post("/news")).status_code == 201
        assert await take_data(events, 1) == ['{"n":1}']
