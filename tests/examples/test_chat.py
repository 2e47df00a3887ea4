"""The chat, whole: ``telex run examples.chat.app:app`` in a process, and ``websockets`` as its members."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.channels.brokers import Valkey
from tests.support.programs import ROOT, TELEX, Program, output_of, program
from tests.support.raw import RawClient

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds for any message; a node that crashed is noticed after 5."""
SVG = "http://www.w3.org/2000/svg"
CHAT = (TELEX, "run", "examples.chat.app:app", "--port", "0", "--drain-timeout", "2")


@pytest.fixture
def history(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite3"


@pytest.fixture
def chat(history: Path) -> Iterator[Program]:
    with running(history) as server:
        yield server
        server.stop()
        assert "Traceback" not in server.log, server.log
        assert "ERROR" not in server.log, server.log


def running(history: Path) -> AbstractContextManager[Program]:
    return program(*CHAT, env={"CHAT_HISTORY": str(history)})


class Member:
    """One connection to a room, in the frames of telex.v1."""

    def __init__(self, client: ClientConnection, server: Program, room: str) -> None:
        self.client = client
        self.begin: dict[str, Any] = {}
        self.names: list[str] = []
        self._address = server.url(f"/rooms/{room}/messages", scheme="http")
        self._ids = 0

    async def send(self, kind: str, data: object, **more: object) -> None:
        await self.client.send(json.dumps({"type": kind, "data": data, **more}))

    async def call(self, **data: object) -> int:
        self._ids += 1
        await self.send("call", data, id=self._ids)
        return self._ids

    async def say(self, text: str) -> int:
        return await self.call(type="say", text=text)

    async def next(self, *kinds: str) -> dict[str, Any]:
        """The next frame of one of these types, or of any; keeps the names of the members."""
        while True:
            received = await limited(self.client.recv())
            assert isinstance(received, str)
            frame: dict[str, Any] = json.loads(received)
            if frame["type"] == "joined":
                self.names.append(frame["member"]["key"])
            elif frame["type"] == "left":
                self.names.remove(frame["member"]["key"])
            if not kinds or frame["type"] in kinds:
                return frame

    async def hears(self, **expected: object) -> dict[str, Any]:
        """The next event has these keys and values."""
        frame = await self.next("event")
        assert frame["data"] | expected == frame["data"]
        return frame

    async def sees(self, kind: str, key: str) -> dict[str, Any]:
        """The next change of the members."""
        frame = await self.next("joined", "left")
        assert (frame["type"], frame["member"]["key"]) == (kind, key)
        return frame

    async def until_members(self, *names: str) -> None:
        """These are in the room once all nodes have exchanged their members."""
        while sorted(self.names) != sorted(names):
            await self.next("joined", "left")

    async def stored(self, before: int | None = None) -> dict[str, Any]:
        """The stored messages of the room, as the page loads them."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(self._address, params={} if before is None else {"before": str(before)})
            found: dict[str, Any] = answer.json()
            return found

    async def until_the_end(self) -> int:
        """The close code, after any frames."""
        try:
            while True:
                await self.next()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 1006


async def limited(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@asynccontextmanager
async def member(server: Program, name: str, room: str = "lobby", **query: str) -> AsyncIterator[Member]:
    url = server.url(f"/rooms/{room}?{urlencode({'name': name, **query})}")
    async with connect(url, open_timeout=PATIENCE, subprotocols=[Subprotocol("telex.v1")], proxy=None) as client:
        joined = Member(client, server, room)
        joined.begin = await joined.next("subscribed")
        joined.names = [each["key"] for each in (await joined.next("present"))["members"]]
        yield joined


@pytest.mark.program
async def test_members_see_each_other_and_talk(chat: Program) -> None:
    async with member(chat, "Ada", tab="a1") as ada:
        assert (await ada.sees("joined", "Ada"))["member"]["meta"] == {"tab": "a1", "was": ""}
        assert await ada.stored() == {"messages": [], "complete": True}
        async with member(chat, "Bo") as bo:
            await ada.sees("joined", "Bo")
            await bo.until_members("Ada", "Bo")
            call = await ada.say("  hello Bo  ")
            frames = [await ada.next("event", "reply") for _ in range(2)]
            event = await bo.hears(type="said", author="Ada", text="hello Bo", number=1)
            assert event in frames
            assert {"type": "reply", "id": call, "data": {"position": event["position"]}} in frames
            await bo.say("hello Ada")
            for each in (ada, bo):
                await each.hears(type="said", author="Bo", text="hello Ada", number=2)
            assert [each["text"] for each in (await bo.stored())["messages"]] == ["hello Bo", "hello Ada"]
        await ada.sees("left", "Bo")
        assert ada.names == ["Ada"]


@pytest.mark.program
async def test_writing_is_shown(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Bo") as bo:
        await ada.send("notify", {"type": "type"})
        await bo.hears(type="typing", name="Ada")
        assert (await bo.stored())["messages"] == []


@pytest.mark.program
async def test_rooms_do_not_get_messages_of_other_rooms(chat: Program) -> None:
    async with member(chat, "Ada", "one") as ada, member(chat, "Bo", "two") as bo:
        await ada.say("in one")
        await bo.say("in two")
        await ada.hears(type="said", text="in one")
        await bo.hears(type="said", text="in two")


@pytest.mark.program
async def test_two_members_never_have_one_name(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Ada"), member(chat, "Ada") as third:
        await ada.until_members("Ada", "Ada 2", "Ada 3")
        async with member(chat, "Bo", was="Ada 3") as bo:
            assert (await ada.sees("joined", "Bo"))["member"]["meta"]["was"] == "Ada 3"
            await third.client.close()
            await ada.sees("left", "Ada 3")
            await bo.say("I am Bo")
            await ada.hears(author="Bo")
        async with member(chat, "Ada", "other") as alone:
            await alone.sees("joined", "Ada")


@pytest.mark.program
async def test_a_member_that_comes_back_misses_nothing(chat: Program) -> None:
    async with member(chat, "Ada") as ada:
        async with member(chat, "Bo") as bo:
            await ada.say("first")
            since = (await bo.hears(text="first"))["position"]
        await ada.say("second")
        await ada.hears(text="first")
        await ada.hears(text="second")
        async with member(chat, "Bo", since=since) as bo:
            assert bo.begin == {"type": "subscribed", "recovered": True, "position": since}
            await bo.hears(text="second")


@pytest.mark.program
async def test_the_history_outlives_the_server(history: Path) -> None:
    with running(history) as first:
        async with member(first, "Ada") as ada:
            await ada.say("before the restart")
            since = (await ada.hears(number=1))["position"]
            await asyncio.to_thread(first.stop)
            assert await ada.until_the_end() == 1012
    with running(history) as second:
        async with member(second, "Ada", since=since) as ada:
            assert ada.begin["recovered"] is False
            assert (await ada.next("gap", "event"))["type"] == "gap"
            found = (await ada.stored())["messages"]
            assert [(each["author"], each["text"]) for each in found] == [("Ada", "before the restart")]
            await ada.say("after it")
            await ada.hears(type="said", number=2)
        second.stop()
    with sqlite3.connect(history) as database:
        assert database.execute("select room, messages from totals").fetchall() == [("lobby", 2)]
    database.close()


@pytest.mark.program
async def test_older_messages_can_be_loaded(chat: Program) -> None:
    async with member(chat, "Ada") as ada:
        for number in range(1, 121):
            await ada.say(f"message {number}")
            await ada.hears(type="said")
        for before, complete, numbers in ((None, False, (71, 121)), (71, False, (21, 71)), (21, True, (1, 21))):
            found = await ada.stored(before)
            assert found["complete"] is complete
            assert [each["number"] for each in found["messages"]] == list(range(*numbers))


@pytest.mark.program
async def test_statistics_are_streamed_as_they_change(chat: Program) -> None:
    async def until(client: ClientConnection, expected: list[dict[str, object]]) -> dict[str, Any]:
        while (received := json.loads(await limited(client.recv())))["rooms"] != expected:
            pass
        assert isinstance(received, dict)
        return received

    async with connect(chat.url("/statistics"), open_timeout=PATIENCE) as client:
        await until(client, [])
        async with member(chat, "Ada", "one"), member(chat, "Bo", "two") as bo, member(chat, "Cy", "two"):
            one = {"room": "one", "members": 1, "messages": 0}
            await until(client, [{"room": "two", "members": 2, "messages": 0}, one])
            await bo.say("hello")
            total = await until(client, [{"room": "two", "members": 2, "messages": 1}, one])
            assert (total["members"], total["messages"]) == (3, 1)
        total = await until(client, [{"room": "two", "members": 0, "messages": 1}])
        assert (total["members"], total["messages"]) == (0, 1)


@pytest.mark.program
@pytest.mark.parametrize(
    ("data", "message", "path"),
    [
        ({}, "Object missing required field `type`", None),
        ({"type": "dance"}, "Invalid value 'dance'", "$.type"),
        ({"type": "say", "text": 3}, "Expected `str`, got `int`", "$.text"),
        ({"type": "say", "text": ""}, "Expected `str` of length >= 1", "$.text"),
        ({"type": "say", "text": "  "}, "Expected `str` matching regex '\\\\S'", "$.text"),
    ],
)
async def test_an_invalid_message_gets_an_error_and_no_more(
    chat: Program, data: dict[str, object], message: str, path: str | None
) -> None:
    async with member(chat, "Ada") as ada:
        call = await ada.call(**data)
        error = {"code": "invalid_message", "message": message} | ({"path": path} if path else {})
        assert await ada.next("error") == {"type": "error", "id": call, "error": error}
        await ada.say("still here")
        await ada.hears(type="said", text="still here")


@pytest.mark.program
async def test_a_member_that_only_sends_nonsense_is_closed(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Bo") as bo:
        await ada.until_members("Ada", "Bo")
        for _ in range(10):
            await bo.client.send("nonsense")
        assert await bo.until_the_end() == 1007
        await ada.sees("left", "Bo")


@pytest.mark.program
async def test_a_member_that_vanishes_is_no_longer_listed(chat: Program) -> None:
    async with member(chat, "Ada") as ada, await RawClient.open(chat.port) as bo:
        assert (await bo.handshake("/rooms/lobby?name=Bo")).status == 101
        await ada.until_members("Ada", "Bo")
        bo.reset()
        await ada.sees("left", "Bo")


@pytest.mark.program
@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/rooms/lobby", "query parameter 'name': is missing"),
        ("/rooms/lobby?name=", "query parameter 'name': Expected `str` of length >= 1"),
        ("/rooms/lobby?name=%20Ada", "query parameter 'name': Expected `str` matching regex"),
        (f"/rooms/lobby?name={'a' * 25}", "query parameter 'name': Expected `str` of length <= 24"),
        ("/rooms/a%20b?name=Ada", "path parameter 'room': Expected `str` matching regex"),
    ],
)
async def test_a_client_without_a_valid_name_is_refused(chat: Program, path: str, complaint: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(chat.url(path), open_timeout=PATIENCE):
            pass
    assert refused.value.response.status_code == 400
    assert complaint in json.loads(refused.value.response.body)["detail"]


@pytest.mark.program
async def test_pages_of_other_sites_are_refused(chat: Program) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(chat.url("/rooms/lobby?name=Ada"), origin="https://evil.example", open_timeout=PATIENCE):  # type: ignore[arg-type]
            pass
    assert refused.value.response.status_code == 403


@pytest.mark.program
def test_the_page_is_served_and_loads_nothing_from_elsewhere(chat: Program) -> None:
    with httpx.Client(base_url=chat.url("", scheme="http")) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for path in ("chat.css", "chat.js", "talk.js", "channel.js", "socket.js", "icon.svg"):
            file = client.get(f"/static/{path}")
            assert file.status_code == 200
            assert re.findall(r"https?://[^\s\"]+", file.text) == ([SVG] if path == "icon.svg" else [])
        assert client.get("/static/../app.py").status_code == 404
        assert client.get("/nothing").status_code == 404


# -- several processes


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    broker = Valkey()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


def demo(history: Path, redis: str) -> AbstractContextManager[Program]:
    """``scripts/demo`` as its users start it."""
    command = (str(ROOT / "scripts" / "demo"), "--port", "0", "--redis", redis, "--drain-timeout", "2")
    return program(*command, env={"CHAT_HISTORY": str(history)})


@pytest.fixture
def demos(history: Path, valkey: Valkey) -> Iterator[tuple[Program, Program]]:
    with demo(history, valkey.url) as one, demo(history, valkey.url) as other:
        yield one, other
        for each in (one, other):
            each.stop()
            assert "Traceback" not in each.log, each.log


@pytest.mark.program
def test_a_demo_says_that_the_url_is_missing() -> None:
    done = output_of(str(ROOT / "scripts" / "demo"), "--redis")
    assert done.returncode != 0
    assert "--redis takes a URL, such as redis://localhost" in done.stderr


async def test_two_demos_are_one_chat(demos: tuple[Program, Program]) -> None:
    async with member(demos[0], "Ada") as ada:
        async with member(demos[1], "Bo") as bo:
            for each in (ada, bo):
                await each.until_members("Ada", "Bo")
            await ada.send("notify", {"type": "type"})
            for each in (ada, bo):
                await each.hears(type="typing", name="Ada")
            await ada.say("hello Bo")
            for each in (ada, bo):
                await each.hears(type="said", author="Ada", text="hello Bo", number=1)
            await bo.say("hello Ada")
            for each in (ada, bo):
                position = (await each.hears(type="said", author="Bo", text="hello Ada", number=2))["position"]
        await ada.until_members("Ada")
        await ada.say("meanwhile")
        async with member(demos[1], "Ada", since=position) as other:
            await other.hears(text="meanwhile")
            await other.until_members("Ada", "Ada 2")
            assert [each["number"] for each in (await other.stored())["messages"]] == [1, 2, 3]


async def test_statistics_count_both_demos(demos: tuple[Program, Program]) -> None:
    async with (
        connect(demos[1].url("/statistics"), open_timeout=PATIENCE, proxy=None) as client,
        member(demos[0], "Ada", "one"),
        member(demos[1], "Bo", "one"),
    ):
        while json.loads(await limited(client.recv()))["members"] != 2:
            pass


async def test_the_members_of_a_demo_that_crashed_leave(history: Path, valkey: Valkey) -> None:
    with demo(history, valkey.url) as one, demo(history, valkey.url) as other:
        async with member(one, "Ada") as ada, member(other, "Bo"):
            await ada.until_members("Ada", "Bo")
            os.killpg(other.process.pid, signal.SIGKILL)
            await ada.sees("left", "Bo")
            await ada.say("still here")
            await ada.hears(type="said", text="still here")


async def test_members_learn_that_messages_were_lost_and_load_them(history: Path, valkey: Valkey) -> None:
    """The broker ends and comes back empty: what was said meanwhile is stored, and a gap is reported."""
    with demo(history, valkey.url) as one, demo(history, valkey.url) as other:
        async with member(one, "Ada") as ada, member(other, "Bo") as bo:
            await ada.until_members("Ada", "Bo")
            valkey.kill()
            call = await ada.say("said meanwhile")
            refused = await ada.next("error")
            assert (refused["id"], refused["error"]["code"]) == (call, "unavailable")
            await valkey.restart()
            await bo.next("gap")
            assert [each["text"] for each in (await bo.stored())["messages"]] == ["said meanwhile"]
            await ada.next("gap")
            await ada.say("after it")
            await bo.hears(text="after it")
