"""The app of ``examples/channels`` on two nodes, one of them with two worker processes, over real brokers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.channels.brokers import Broker, Nats, Valkey
from tests.support.programs import TELEX, Program, program

T = TypeVar("T")
PATIENCE = 30.0
FRAMES = Subprotocol("telex.v1")
NODE = (TELEX, "run", "examples.channels.app:app", "--port", "0", "--drain-timeout", "2")


@pytest.fixture(scope="module", params=[Valkey, Nats])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    made: Broker = request.param()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def first(broker: Broker) -> Iterator[Program]:
    """A node of two worker processes."""
    with program(*NODE, "--workers", "2", env={"CHANNELS_URL": broker.url}) as node:
        node.wait_for("Application startup complete", times=2)
        node.accepts(("127.0.0.1", node.port))
        yield node


@pytest.fixture(scope="module")
def second(broker: Broker) -> Iterator[Program]:
    """A node on another port."""
    with program(*NODE, env={"CHANNELS_URL": broker.url}) as node:
        yield node


async def limited(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await waiting


async def heard(client: ClientConnection) -> Any:
    return json.loads(await limited(client.recv()))


async def until(client: ClientConnection, kind: str) -> Any:
    """The next frame of this type; the others are passed over."""
    while (message := await heard(client))["type"] != kind:
        pass
    return message


async def joins(client: ClientConnection, name: str) -> None:
    """Wait until that member is there, as one of the first or as one that joined."""
    while True:
        message = await heard(client)
        members = [*message.get("members", []), message.get("member", {})]
        if message["type"] in {"present", "joined"} and name in [member.get("key") for member in members]:
            return


@asynccontextmanager
async def member(node: Program, room: str, name: str, more: str = "") -> AsyncIterator[ClientConnection]:
    url = node.url(f"/rooms/{room}?name={name}{more}")
    async with connect(url, open_timeout=PATIENCE, subprotocols=[FRAMES], proxy=None) as client:
        assert client.subprotocol == FRAMES
        yield client


async def say(client: ClientConnection, author: str, text: str) -> None:
    await client.send(json.dumps({"type": "notify", "data": {"author": author, "text": text}}))


async def test_what_is_said_on_one_node_arrives_on_the_other(first: Program, second: Program) -> None:
    async with member(first, "talk", "Ada") as ada, member(second, "talk", "Bo") as bo:
        await say(ada, "Ada", "hello Bo")
        for each in (ada, bo):
            assert (await until(each, "event"))["data"] == {"author": "Ada", "text": "hello Bo"}
        await say(bo, "Bo", "hello Ada")
        for each in (ada, bo):
            assert (await until(each, "event"))["data"] == {"author": "Bo", "text": "hello Ada"}


async def test_presence_spans_the_nodes(first: Program, second: Program) -> None:
    async with member(first, "presence", "Ada") as ada:
        await joins(ada, "Ada")
        async with member(second, "presence", "Bo") as bo:
            await joins(ada, "Bo")
            await joins(bo, "Ada")
        left = await until(ada, "left")
        assert left["member"]["key"] == "Bo"


async def test_the_past_is_replayed_on_the_other_node(first: Program, second: Program) -> None:
    async with member(first, "past", "Ada") as ada:
        positions = []
        for number in range(3):
            await say(ada, "Ada", f"message {number}")
            positions.append((await until(ada, "event"))["position"])
    async with connect(second.url("/rooms/past?name=Bo"), proxy=None) as bo:
        assert [(await heard(bo))["text"] for _ in range(3)] == ["message 0", "message 1", "message 2"]
    async with connect(second.url(f"/rooms/past?name=Bo&since={positions[0]}"), proxy=None) as bo:
        assert [(await heard(bo))["text"] for _ in range(2)] == ["message 1", "message 2"]
    with pytest.raises(InvalidStatus) as gone:
        async with connect(second.url("/rooms/past?name=Bo&since=another-epoch:1"), proxy=None):
            pass
    assert gone.value.response.status_code == 410
    async with member(second, "past", "Bo", "&since=another-epoch:1") as bo:
        resumed = (await until(bo, "gap"))["position"]
    async with member(first, "past", "Ada") as ada:
        await say(ada, "Ada", "message 3")
        while (await until(ada, "event"))["data"]["text"] != "message 3":
            pass
    async with connect(second.url(f"/rooms/past?name=Bo&since={resumed}"), proxy=None) as bo:
        assert (await heard(bo))["text"] == "message 3"


async def test_a_worker_without_an_app_publishes_its_progress(broker: Broker, first: Program, second: Program) -> None:
    async with connect(second.url("/jobs/nightly"), proxy=None) as watching:
        with program(sys.executable, "-m", "examples.channels.worker", "nightly", env={"CHANNELS_URL": broker.url}):
            told = [await heard(watching) for _ in range(6)]
    assert told == [{"job": "nightly", "done": done, "steps": 5} for done in range(6)]
    async with connect(first.url("/jobs/nightly"), proxy=None) as late:
        assert [await heard(late) for _ in range(6)] == told


async def test_the_dashboard_shows_every_process(first: Program, second: Program) -> None:
    async with connect(second.url("/dashboard"), proxy=None) as dashboard:
        nodes: set[str] = set()
        while len(nodes) < 3:
            nodes.add((await heard(dashboard))["node"])
    assert f":{second.process.pid}" in {node[node.index(":") :] for node in nodes}


async def test_a_client_without_a_name_does_not_join(second: Program) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(second.url("/rooms/talk"), proxy=None):
            pass
    assert refused.value.response.status_code == 400


async def test_the_members_of_a_killed_node_leave(broker: Broker, first: Program) -> None:
    with program(*NODE, env={"CHANNELS_URL": broker.url}) as doomed:
        async with member(first, "crash", "Ada") as ada, member(doomed, "crash", "Bo"):
            await joins(ada, "Bo")
            os.killpg(doomed.process.pid, signal.SIGKILL)
            assert (await until(ada, "left"))["member"]["key"] == "Bo"


def test_the_nodes_end_in_order(first: Program, second: Program) -> None:
    """The last test: it stops the servers that the others used, and reads their logs."""
    for node in (first, second):
        node.stop()
        assert "Traceback" not in node.log, node.log
        assert "ERROR" not in node.log, node.log
