"""Calls, answers in parts, notifies and answers on a connection that speaks telex.v1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from telex import Telex, WebSocket, WebSocketDisconnect, websocket_listener
from telex.exceptions import CallError, CallTimeout, ConnectionStateError, WebSocketException
from telex.testing import AsyncTestClient, AsyncWebSocketTestSession, TestClient, create_test_client
from telex.testing.frames import AnswerPart, Cancel, End, Error, ErrorBody, Notify, Reply, ServerCall
from tests.protocol.apps import Journal, Move, Said, Say, make_app
from tests.support.leaks import no_leaks
from tests.testing.apps import says

V1 = ["telex.v1"]


class Client(AsyncTestClient):
    """Offers telex.v1."""

    def __init__(self, app: Telex, journal: Journal, **options: Any) -> None:
        super().__init__(app, **options)
        self.journal = journal

    def on(self, path: str) -> AsyncWebSocketTestSession:
        return self.websocket_connect(path, V1)


@pytest.fixture
def client() -> Client:
    journal = Journal()
    return Client(make_app(journal), journal)


# -- calls


async def test_a_call_returns_the_typed_answer(client: Client) -> None:
    async with client, client.on("/typed") as session:
        assert session.hello["type"] == "hello"
        assert await session.call(Say("hi"), Said) == Said("HI", 2)
        assert await session.call(Say("hi")) == {"text": "HI", "number": 2}
        await session.refute()  # neither hello nor answers are left


async def test_an_answer_without_data_and_bytes(client: Client) -> None:
    async with client:
        async with client.on("/void") as session:
            assert await session.call("x") is None
            assert await session.call("x", None) is None
            with pytest.raises(AssertionError, match=r"the answer to the call 3 is not a int: .*required field"):
                await session.call("x", int)
        async with client.on("/bytes") as session:
            assert await session.call(b"ab", bytes) == b"ba"
            assert await session.call(b"ab") == b"ba"
            with pytest.raises(AssertionError, match="got b'ba'"):
                await session.call(b"ab", Said)


async def test_an_answer_of_another_type_shows_the_answer(client: Client) -> None:
    async with client, client.on("/typed") as session:
        text = r"the answer to the call 1 is not a Move: .* got '\{\"text\":\"HI\",\"number\":2\}'"
        with pytest.raises(AssertionError, match=text):
            await session.call(Say("hi"), Move)


async def test_an_error_is_an_exception_with_its_code(client: Client) -> None:
    async with client, client.on("/fails") as session:
        with pytest.raises(CallError) as declared:
            await session.call("declared")
        found = declared.value
        assert (found.code, found.message, found.data) == ("no_such_room", "no room 7", {"room": "7"})
        with pytest.raises(CallError) as missing:
            await session.call("missing")
        assert missing.value.code == "not_found"


async def test_an_exception_of_the_handler_is_raised_in_the_test(client: Client) -> None:
    async with client, client.on("/fails") as session:
        for _ in range(2):
            with pytest.raises(ValueError, match="a secret of the server"):
                await session.call("secret")
        assert await session.call("fine") == "fine"


async def test_without_exceptions_of_the_server_the_test_gets_what_clients_get() -> None:
    client = Client(make_app(Journal()), Journal(), raise_server_exceptions=False)
    async with client, client.on("/fails") as session:
        with pytest.raises(CallError, match=r"^internal: internal error$"):
            await session.call("secret")


async def test_calls_at_once_get_their_own_answers(client: Client) -> None:
    async with client, client.on("/sync") as session:
        assert await asyncio.gather(*[session.call(number, int) for number in range(100)]) == list(range(1, 101))


async def test_a_call_that_is_cancelled(client: Client) -> None:
    async with client, client.on("/slow") as session:
        pending = await session.begin("wait")
        await client.journal.until("begin wait")
        await pending.cancel()
        with pytest.raises(CallError, match="cancelled"):
            await pending.result()
        await pending.cancel()  # late: nothing is sent
        assert await session.call("next") == "next"
    assert client.journal.entries == ["begin wait", "end wait", "begin next", "end next"]


async def test_a_call_without_an_answer_names_what_was_exchanged_and_is_cancelled(client: Client) -> None:
    async with client, client.on("/slow") as session:
        with pytest.raises(TimeoutError) as late:
            await session.call("wait", timeout=0.05)
        text = str(late.value)
        assert text.startswith("no answer to the call 1 came within 0.05 s; it waits in ")
        assert '  sent text \'{"type":"call","id":1,"data":"wait"}\'' in text
        await client.journal.until("end wait")


async def test_fields_of_the_frame(client: Client) -> None:
    async with client, client.on("/slow") as session:
        with pytest.raises(CallError, match=r"^timeout"):
            await session.call("wait", frame={"timeout": 0.01})
        with pytest.raises(CallError, match=r"^bad_frame"):
            await session.call("x", frame={"key": "k", "meta": {"a": 1}})


async def test_calls_wait_for_credit(client: Client) -> None:
    async with client, client.on("/slow") as session:
        assert session.hello["credit"] == 8
        pending = [await session.begin("wait"), *[await session.begin(str(number)) for number in range(7)]]
        with pytest.raises(TimeoutError, match=r"no credit for a call came within 0.02 s"):
            await session.call("more", timeout=0.02)
        with pytest.raises(TimeoutError, match=r"no credit for a notify came within 0.02 s"):
            await session.notify("more", timeout=0.02)
        await pending[0].cancel()
        assert await session.call("more") == "more"
        assert [await each.result() for each in pending[1:]] == [str(number) for number in range(7)]


async def test_notifies_get_their_credit_back(client: Client) -> None:
    async with client, client.on("/void") as session:
        for number in range(100):
            await session.notify(str(number))
        await client.journal.until("99")
        await session.refute()  # the frames with credit are not the test's


async def test_the_end_of_the_connection_ends_calls(client: Client) -> None:
    @websocket_listener("/")
    async def leave(data: str) -> str:
        raise WebSocketException(4001, data)

    async with AsyncTestClient(Telex([leave])) as leaving, leaving.websocket_connect("/", V1) as session:
        with pytest.raises(WebSocketDisconnect) as closed:
            await session.call("enough")
        assert (closed.value.code, closed.value.reason) == (4001, "enough")
        found = await session.expect(WebSocketDisconnect)
        assert found.code == 4001


async def test_the_test_closes_while_a_call_runs(client: Client) -> None:
    async with client, client.on("/slow") as session:
        call = asyncio.create_task(session.call("wait"))
        await client.journal.until("begin wait")
        await session.close()
        with pytest.raises(WebSocketDisconnect):
            await call
        await client.journal.until("end wait")


async def test_in_plain_mode_the_methods_say_what_they_need(client: Client) -> None:
    async with client, client.websocket_connect("/sync") as session:
        with pytest.raises(ConnectionStateError, match=r"plain mode: connect with subprotocols=\['telex.v1'\]"):
            await session.call(1)
        with pytest.raises(ConnectionStateError, match="plain mode"):
            session.answer(Say, Said("x"))


# -- answers in parts


async def test_parts_are_read_with_credit(client: Client) -> None:
    async with client, client.on("/parts") as session:
        assert [each.number async for each in session.stream(100, Said)] == list(range(100))
        async with session.stream(1_000_000, Said) as lines:
            for number in range(40):
                assert await anext(lines) == Said("part", number)
        await client.journal.until("closed", 2)
        await session.refute()


async def test_a_test_that_gives_credit_itself(client: Client) -> None:
    async with client, client.on("/parts") as session, session.stream(100, Said, credit="manual") as lines:
        assert [(await lines.receive()).number for _ in range(16)] == list(range(16))
        with pytest.raises(TimeoutError, match="no item of the call 1 came"):
            await lines.receive(0.02)
        await lines.more(2)
        assert [(await lines.receive()).number for _ in range(2)] == [16, 17]
        with pytest.raises(TimeoutError, match="no item"):
            await lines.receive(0.02)


async def test_the_wrong_method_for_an_answer_says_which(client: Client) -> None:
    async with client:
        async with client.on("/parts") as session:
            with pytest.raises(AssertionError, match=r"the call 1 was answered in parts: use stream\(\)"):
                await session.call(3)
        async with client.on("/sync") as session:
            with pytest.raises(AssertionError, match=r"answered with one reply: use call\(\)"):
                await anext(session.stream(3))


async def test_an_error_in_the_middle_of_parts() -> None:
    class Broken(Exception):
        """Declared."""

    @websocket_listener("/", errors=[Broken])
    async def parts(data: int) -> AsyncIterator[int]:
        yield data
        raise Broken("no more")

    async with AsyncTestClient(Telex([parts])) as client, client.websocket_connect("/", V1) as session:
        lines = session.stream(5, int)
        assert await anext(lines) == 5
        with pytest.raises(CallError, match=r"^broken: no more"):
            await anext(lines)
        with pytest.raises(AssertionError, match="an item of the call 2 is not a str"):
            await anext(session.stream(5, str))


# -- calls of the server


async def test_a_value_answers_the_server(client: Client) -> None:
    async with client, client.on("/ask") as session:
        session.answer(Say, Said("it", 1))
        assert await session.call("this", Said) == Said("it", 2)


async def test_functions_answer_the_server(client: Client) -> None:
    async with client, client.on("/ask") as session:

        @session.answer
        def what(data: Say) -> Said:
            return Said(data.text, 5)

        assert await session.call("this", Said) == Said("what of this?", 6)

        async def slowly(data: Say) -> Said:
            await asyncio.sleep(0)
            return Said("slow", 1)

        session.answer(Say, slowly)  # the last one comes first
        session.answer(Move, Said("never"))
        assert await session.call("this", Said) == Said("slow", 2)


async def test_an_answer_may_be_an_error(client: Client) -> None:
    seen: list[CallError] = []

    @websocket_listener("/")
    async def ask(data: str, socket: WebSocket) -> str:
        try:
            await socket.call(data, str)
        except CallError as error:
            seen.append(error)
        return "asked"

    async with AsyncTestClient(Telex([ask])) as asking, asking.websocket_connect("/", V1) as session:

        @session.answer
        def refuse(data: str) -> str:
            raise CallError("busy", "later", {"in": 5})

        assert await session.call("x") == "asked"
    assert [(each.code, each.message, each.data) for each in seen] == [("busy", "later", {"in": 5})]


async def test_a_function_that_fails_fails_the_test(client: Client) -> None:
    async with client, client.on("/ask") as session:

        @session.answer
        def wrong(data: Say) -> Said:
            raise AssertionError(f"unexpected {data.text}")

        with pytest.raises(AssertionError, match="unexpected what of this"):
            await session.call("this", Said)
        session.answer(Say, Said("fine"))
        assert await session.call("again", Said) == Said("fine", 1)


async def test_an_answer_that_the_server_no_longer_wants_is_cancelled() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    @websocket_listener("/")
    async def ask(data: str, socket: WebSocket) -> str:
        with pytest.raises(CallTimeout):
            await socket.call(data, str, timeout=0.02)
        return "late"

    async def never(data: str) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with AsyncTestClient(Telex([ask])) as client, client.websocket_connect("/", V1) as session:
        session.answer(str, never)
        assert await session.call("x") == "late"
        await asyncio.wait_for(ended.wait(), 2)
    assert begun.is_set()


async def test_a_function_that_answers_ends_with_the_session(client: Client) -> None:
    begun = asyncio.Event()

    async def never(data: Say) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with client, no_leaks(), client.on("/ask") as session:
        session.answer(Say, never)
        await session.begin("x")
        await asyncio.wait_for(begun.wait(), 2)


async def test_calls_that_nothing_answers_are_left_to_the_test(client: Client) -> None:
    async with client, client.on("/ask") as session:
        pending = await session.begin("this")
        asked = await session.expect(ServerCall[Say])
        assert asked.data == Say("what of this?")
        await session.send(Reply(asked.id, Said("by hand", 1)))
        assert await pending.result(Said) == Said("by hand", 2)


# -- frames


async def test_frames_are_expected_as_types_values_and_dicts(client: Client) -> None:
    async with client, client.on("/tell") as session:
        for _ in range(3):
            await session.call("x")
        assert await session.expect(Notify[Said]) == Notify(Said("x"))
        assert (await session.expect(Notify[str])).data == "123"
        assert (await session.expect(Notify)).data == {"n": 123}
        assert (await session.expect(Notify[bytes])).data == b"\x00\x01"
        await session.expect(Notify(Said("x")))
        await session.expect(Notify("123"))
        await session.expect(Notify({"n": 123}))
        await session.expect(Notify(b"\x00\x01"))
        await session.expect({"type": "notify", "data": {"text": "x", "number": 0}})
        await session.expect({"type": "notify", "data": "123"})
        await session.expect({"type": "notify", "data": {"n": 123}})
        await session.expect({"type": "notify", "data": b"\x00\x01"})


async def test_frames_written_by_hand_are_answered_to_the_test(client: Client) -> None:
    async with client:
        async with client.on("/parts") as session:
            await session.send({"type": "call", "id": 7, "data": 1})
            await session.expect(AnswerPart(7, Said("part")))
            await session.expect(End(7))
            await session.send(Cancel(8))
            found = await session.expect(Error)
            assert (found.error.code, found.about) == ("bad_frame", "connection")
        async with client.on("/bytes") as session:
            await session.send({"type": "call", "id": 1, "data": "AAA="})
            assert (await session.expect(Error)).error.code == "invalid_message"
            await session.send(Notify(b"12"))
            await session.send({"type": "ping"})
            await session.expect({"type": "pong"})


async def test_a_frame_that_does_not_match_is_shown_with_those_before(client: Client) -> None:
    async with client, client.on("/tell") as session:
        await session.call("x")
        with pytest.raises(AssertionError) as wrong:
            await session.expect(Reply[Said])
        text = str(wrong.value)
        assert text.startswith("expected a telex.testing.frames.Reply")
        assert 'got text \'{"type":"notify"' in text
        assert 'sent text \'{"type":"call","id":1,"data":"x"}\'' in text
        assert 'got  text \'{"type":"reply","id":1,"data":"x"}\'' in text
        with pytest.raises(AssertionError, match=r"Expected `int`, got `str`"):
            await session.expect(Notify[int])
        with pytest.raises(AssertionError, match="expected JSON"):
            await session.expect({"type": "notify", "data": {"n": 124}})
        with pytest.raises(AssertionError, match=r"Expected JSON, got a binary message"):
            await session.expect(Notify[Said])


async def test_an_absent_value_is_not_null(client: Client) -> None:
    async with client, client.on("/void") as session:
        await session.send({"type": "call", "id": 1, "data": "x"})
        with pytest.raises(AssertionError):
            await session.expect(Reply(1, None))
        await session.send({"type": "call", "id": 2, "data": "x"})
        await session.expect(Reply(2))
        await session.send({"type": "call", "id": 3, "data": "x"})
        with pytest.raises(AssertionError, match="missing required field `data`"):
            await session.expect(Reply[str])


async def test_an_app_that_says_no_hello_first() -> None:
    error = Error(ErrorBody("permission_denied"), about="connection")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "telex.v1"})
        await send({"type": "websocket.send", "text": '{"type":"error","about":"connection",'
                    '"error":{"code":"permission_denied"}}'})  # fmt: skip
        await send({"type": "websocket.send", "text": '{"type":"reply","id":1}'})
        await send({"type": "websocket.close", "code": 4403})

    async with AsyncTestClient(app).websocket_connect("/", V1) as session:
        assert session.hello == {}
        await session.expect(error)
        await session.expect(Reply(1))
        assert (await session.expect(WebSocketDisconnect)).code == 4403


async def test_the_server_pings(client: Client) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "telex.v1"})
        await send({"type": "websocket.send", "text": '{"type":"hello"}'})
        await send({"type": "websocket.send", "text": '{"type":"ping"}'})
        assert (await receive())["text"] == '{"type":"pong"}'
        await send({"type": "websocket.send", "text": '{"type":"notify","data":1}'})
        await receive()

    async with AsyncTestClient(app).websocket_connect("/", V1) as session:
        await session.expect(Notify(1))


async def test_items_without_credit_fail_the_test() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "telex.v1"})
        await send({"type": "websocket.send", "text": '{"type":"hello"}'})
        await receive()
        for _ in range(17):
            await send({"type": "websocket.send", "text": '{"type":"item","id":1,"data":1}'})
        await receive()

    with pytest.raises(AssertionError, match="the app sent an item of the call 1 without credit"):
        async with AsyncTestClient(app).websocket_connect("/", V1) as session:
            await anext(session.stream(1, credit="manual"))


async def test_an_app_in_plain_mode_is_seen_as_it_is() -> None:
    async with AsyncTestClient(says('{"type":"hello"}')).websocket_connect("/", V1) as session:
        await session.expect({"type": "hello"})


# -- the synchronous client


def test_the_synchronous_session_does_the_same() -> None:
    journal = Journal()
    with TestClient(make_app(journal)) as client:
        with client.websocket_connect("/typed", V1) as session:
            assert session.hello["credit"] == 32
            assert session.call(Say("hi"), Said) == Said("HI", 2)
            with pytest.raises(TimeoutError):
                session.expect(Notify, 0.01)
        with client.websocket_connect("/slow", V1) as session:
            pending = session.begin("wait")
            session.notify("other")
            pending.cancel()
            with pytest.raises(CallError, match="cancelled"):
                pending.result()
            assert session.begin("more").result(str) == "more"
        with client.websocket_connect("/parts", V1) as session:
            assert [each.number for each in session.stream(50, Said)] == list(range(50))
            with session.stream(50, Said, credit="manual") as lines:
                assert [lines.receive().number for _ in range(16)] == list(range(16))
                lines.more(1)
                assert next(lines).number == 16
        with client.websocket_connect("/ask", V1) as session:
            session.answer(Say, Said("it", 1))
            assert session.call("this", Said) == Said("it", 2)


def test_a_synchronous_test_of_a_handler_alone() -> None:
    @websocket_listener("/")
    def double(data: int) -> int:
        return 2 * data

    with create_test_client(double) as client, client.websocket_connect("/", V1) as session:
        assert session.call(4, int) == 8
