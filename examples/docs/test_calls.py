from collections.abc import AsyncIterator

import msgspec
import pytest

from telex import Multiplex, WebSocket, WebsocketListener
from telex.exceptions import CallError
from telex.testing import create_async_test_client, create_test_client
from telex.testing.frames import Notify


class Delete(msgspec.Struct, tag="delete"):
    files: int


class Lines(msgspec.Struct, tag="lines"):
    count: int


class Confirm(msgspec.Struct):
    question: str


class TooMany(Exception):
    """More files than may be deleted at once."""


class Files(WebsocketListener):
    path = "/files"
    errors = [TooMany]

    async def on_delete(self, data: Delete, socket: WebSocket) -> bool:
        if data.files > 100:
            raise TooMany("at most 100 files")
        await socket.notify("one moment")
        return await socket.call(Confirm(f"Delete {data.files} files?"), bool)

    async def on_lines(self, data: Lines) -> AsyncIterator[int]:
        for number in range(data.count):
            yield number


def test_a_call_and_what_the_server_asks() -> None:
    with create_test_client(Files) as client, client.websocket_connect("/files", ["telex.v1"]) as session:

        @session.answer
        def confirm(data: Confirm) -> bool:
            return data.question == "Delete 3 files?"

        assert session.call(Delete(3), bool) is True
        session.expect(Notify("one moment"))

        session.answer(Confirm, False)  # the last answer counts
        assert session.call(Delete(3), bool) is False


def test_an_error() -> None:
    with create_test_client(Files) as client, client.websocket_connect("/files", ["telex.v1"]) as session:
        with pytest.raises(CallError) as refused:
            session.call(Delete(101))
        assert (refused.value.code, refused.value.message) == ("too_many", "at most 100 files")


async def test_an_answer_in_parts() -> None:
    client = create_async_test_client(Files)
    async with client, client.websocket_connect("/files", ["telex.v1"]) as session:
        assert [number async for number in session.stream(Lines(40), int)] == list(range(40))

        async with session.stream(Lines(1_000_000), int) as numbers:  # cancelled at the end of the block
            assert await anext(numbers) == 0


def test_two_routes_on_one_socket() -> None:
    client = create_test_client([Files, Multiplex("/socket", routes=[Files])])
    with client, client.multiplex("/socket") as socket, socket.route("/files") as one, socket.route("/files") as other:
        one.answer(Confirm, True)
        other.answer(Confirm, False)
        assert one.call(Delete(1), bool) is True
        assert other.call(Delete(1), bool) is False
