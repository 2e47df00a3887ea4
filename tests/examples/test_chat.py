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

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from examples.chat.messages import Typing
from examples.chat.rooms import BACKLOG, Room
from telex import WebSocketException
from tests.channels.brokers import Valkey
from tests.support.programs import ROOT, TELEX, Program, output_of, program
from tests.support.raw import RawClient

T = TypeVar("T")
PATIENCE = 10.0
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
    """One connection to a room."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.welcome: dict[str, Any] = {}

    async def send(self, **message: object) -> None:
        await self.client.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        received = await limited(self.client.recv())
        assert isinstance(received, str)
        message = json.loads(received)
        assert isinstance(message, dict)
        return message

    async def expect(self, **expected: object) -> dict[str, Any]:
        """The next message has these keys and values."""
        message = await self.next()
        assert message | expected == message
        return message

    async def until_members(self, *names: str) -> None:
        """These are in the room once all nodes have exchanged their members."""
        while sorted(self.welcome["members"]) != sorted(names):
            self.welcome = await self.expect(type="presence")

    async def until_the_end(self) -> None:
        while True:
            await self.next()


async def limited(waiting: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await waiting


@asynccontextmanager
async def member(server: Program, name: str, room: str = "lobby") -> AsyncIterator[Member]:
    async with connect(server.url(f"/rooms/{room}?name={name}"), open_timeout=PATIENCE) as client:
        joined = Member(client)
        joined.welcome = await joined.expect(type="welcome", room=room)
        yield joined


@pytest.mark.program
async def test_members_see_each_other_and_talk(chat: Program) -> None:
    async with member(chat, "Ada") as ada:
        assert ada.welcome["members"] == ["Ada"]
        assert ada.welcome["history"] == []
        async with member(chat, "Bo") as bo:
            assert bo.welcome["members"] == ["Ada", "Bo"]
            await ada.expect(type="presence", what="came", name="Bo", members=["Ada", "Bo"])
            await ada.send(type="say", text="  hello Bo  ")
            for each in (ada, bo):
                await each.expect(type="said", author="Ada", text="hello Bo", number=1)
            await bo.send(type="say", text="hello Ada")
            for each in (ada, bo):
                await each.expect(type="said", author="Bo", text="hello Ada", number=2)
        await ada.expect(type="presence", what="left", name="Bo", members=["Ada"])


@pytest.mark.program
async def test_writing_is_shown_to_the_others_only(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Bo") as bo:
        await ada.expect(what="came")
        await ada.send(type="type")
        await bo.expect(type="typing", name="Ada")
        await ada.send(type="say", text="done")
        await ada.expect(type="said")


@pytest.mark.program
async def test_rooms_do_not_get_messages_of_other_rooms(chat: Program) -> None:
    async with member(chat, "Ada", "one") as ada, member(chat, "Bo", "two") as bo:
        await ada.send(type="say", text="in one")
        await bo.send(type="say", text="in two")
        await ada.expect(type="said", text="in one")
        await bo.expect(type="said", text="in two")


@pytest.mark.program
async def test_two_members_never_have_one_name(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Ada") as other, member(chat, "Ada") as third:
        assert other.welcome["you"] == "Ada 2"
        assert third.welcome["you"] == "Ada 3"
        await ada.expect(what="came", name="Ada 2")
        await ada.expect(what="came", name="Ada 3")
        await other.expect(what="came", name="Ada 3")
        await other.send(type="rename", name="Ada")
        await other.expect(type="refused", reason="Ada is taken")
        await other.send(type="rename", name="Bo")
        for each in (ada, other, third):
            await each.expect(what="renamed", name="Bo", was="Ada 2", members=["Ada", "Bo", "Ada 3"])
        await other.send(type="say", text="I am Bo")
        await ada.expect(type="said", author="Bo")


@pytest.mark.program
async def test_the_history_outlives_the_server(history: Path) -> None:
    with running(history) as first:
        async with member(first, "Ada") as ada:
            await ada.send(type="say", text="before the restart")
            await ada.expect(type="said", number=1)
            await asyncio.to_thread(first.stop)
            with pytest.raises(ConnectionClosed) as closed:
                await ada.next()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    with running(history) as second:
        async with member(second, "Bo") as bo:
            assert [(each["author"], each["text"]) for each in bo.welcome["history"]] == [("Ada", "before the restart")]
            await bo.send(type="say", text="after it")
            await bo.expect(type="said", number=2)
        second.stop()
    with sqlite3.connect(history) as database:
        assert database.execute("select room, messages from totals").fetchall() == [("lobby", 2)]
    database.close()


@pytest.mark.program
async def test_older_messages_can_be_recalled(chat: Program) -> None:
    async with member(chat, "Ada") as ada:
        for number in range(1, 121):
            await ada.send(type="say", text=f"message {number}")
        for _ in range(120):
            await ada.expect(type="said")
        async with member(chat, "Bo") as bo:
            assert [each["number"] for each in bo.welcome["history"]] == list(range(71, 121))
            await bo.send(type="recall", before=71)
            older = await bo.expect(type="recalled", complete=False)
            assert [each["number"] for each in older["history"]] == list(range(21, 71))
            await bo.send(type="recall", before=21)
            oldest = await bo.expect(type="recalled", complete=True)
            assert [each["number"] for each in oldest["history"]] == list(range(1, 21))


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
            await bo.send(type="say", text="hello")
            total = await until(client, [{"room": "two", "members": 2, "messages": 1}, one])
            assert (total["members"], total["messages"]) == (3, 1)
        total = await until(client, [{"room": "two", "members": 0, "messages": 1}])
        assert (total["members"], total["messages"]) == (0, 1)


@pytest.mark.program
@pytest.mark.parametrize(
    ("sent", "message", "path"),
    [
        ("", "Input data was truncated", ""),
        ("hello", "JSON is malformed: invalid character (byte 0)", ""),
        ("{}", "Object missing required field `type`", ""),
        ('{"type": "dance"}', "Invalid value 'dance'", "$.type"),
        ('{"type": "say", "text": 3}', "Expected `str`, got `int`", "$.text"),
        ('{"type": "say", "text": ""}', "Expected `str` of length >= 1", "$.text"),
        ('{"type": "say", "text": "  "}', "Expected `str` matching regex '\\\\S'", "$.text"),
        ('{"type": "rename", "name": " Ada"}', "Expected `str` matching regex '^\\\\S(.*\\\\S)?$'", "$.name"),
    ],
)
async def test_an_invalid_message_gets_the_error_frame_and_no_more(
    chat: Program, sent: str, message: str, path: str
) -> None:
    async with member(chat, "Ada") as ada:
        await ada.client.send(sent)
        assert await ada.next() == {
            "type": "error",
            "error": {"code": "invalid_message", "message": message, "path": path},
        }
        await ada.send(type="say", text="still here")
        await ada.expect(type="said", text="still here")


@pytest.mark.program
async def test_a_member_that_only_sends_nonsense_is_closed(chat: Program) -> None:
    async with member(chat, "Ada") as ada, member(chat, "Bo") as bo:
        await ada.expect(what="came")
        for _ in range(10):
            await bo.client.send("nonsense")
        for _ in range(10):
            assert "error" in await bo.next()
        with pytest.raises(ConnectionClosed) as closed:
            await bo.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1007
        await ada.expect(what="left", name="Bo")


@pytest.mark.program
async def test_a_member_that_vanishes_is_no_longer_listed(chat: Program) -> None:
    async with member(chat, "Ada") as ada, await RawClient.open(chat.port) as bo:
        assert (await bo.handshake("/rooms/lobby?name=Bo")).status == 101
        await ada.expect(what="came", name="Bo", members=["Ada", "Bo"])
        bo.reset()
        await ada.expect(what="left", name="Bo", members=["Ada"])


async def test_a_member_that_does_not_take_its_news_is_asked_to_leave() -> None:
    slow = Room("lobby").add("Bo")
    for _ in range(BACKLOG + 1):
        slow.tell(Typing("Ada"))
    news = slow.news(after=0)
    for _ in range(BACKLOG - 1):
        assert await anext(news) == Typing("Ada")
    with pytest.raises(WebSocketException, match="too slow") as closed:
        await anext(news)
    assert closed.value.code == 1013


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
        for path in ("chat.css", "chat.js", "talk.js", "socket.js", "icon.svg"):
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
            await ada.expect(type="presence", what="came", name="Bo", members=["Ada", "Bo"])
            await bo.until_members("Ada", "Bo")
            await ada.send(type="type")
            # Messages of the welcome may come once more.
            while (message := await bo.next())["type"] == "presence":
                assert message["name"] == "Ada"
            assert message == {"type": "typing", "name": "Ada"}
            await ada.send(type="say", text="hello Bo")
            for each in (ada, bo):
                await each.expect(type="said", author="Ada", text="hello Bo", number=1)
            await bo.send(type="say", text="hello Ada")
            for each in (ada, bo):
                await each.expect(type="said", author="Bo", text="hello Ada", number=2)
            await bo.send(type="rename", name="Ada")
            await bo.expect(type="refused", reason="Ada is taken")
            await bo.send(type="rename", name="Cy")
            await ada.expect(what="renamed", name="Cy", was="Bo", members=["Ada", "Cy"])
            await bo.expect(what="renamed", name="Cy", was="Bo")
        await ada.expect(what="left", name="Cy", members=["Ada"])
        async with member(demos[1], "Ada") as other:
            assert other.welcome["you"] == "Ada 2"
            assert [each["text"] for each in other.welcome["history"]] == ["hello Bo", "hello Ada"]


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
            await ada.expect(what="came", name="Bo")
            os.killpg(other.process.pid, signal.SIGKILL)
            await ada.expect(what="left", name="Bo", members=["Ada"])
            await ada.send(type="say", text="still here")
            await ada.expect(type="said", text="still here")


async def test_members_come_back_for_news_that_were_lost(history: Path, valkey: Valkey) -> None:
    """The broker ends and comes back empty: what was sent meanwhile is reported as lost."""
    with demo(history, valkey.url) as one, demo(history, valkey.url) as other:
        async with member(one, "Ada") as ada, member(other, "Bo") as bo:
            await ada.expect(what="came", name="Bo")
            await bo.until_members("Ada", "Bo")
            valkey.kill()
            await ada.send(type="say", text="said meanwhile")
            await valkey.restart()
            with pytest.raises(ConnectionClosed) as closed:
                await bo.until_the_end()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        async with member(other, "Bo") as bo:
            assert "said meanwhile" in [each["text"] for each in bo.welcome["history"]]
