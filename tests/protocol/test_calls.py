"""Calls of clients: answers, errors, cancels, windows and answers in parts, on a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from telex import (
    ImproperlyConfiguredException,
    Telex,
    ValidationException,
    WebSocket,
    WebSocketDisconnect,
    websocket_listener,
)
from telex.protocol.errors import ERROR_CODES, checked_code
from telex.types import ASGIApp, Receive, Scope, Send
from tests.contract.servers import ServerKind
from tests.protocol.apps import Journal, NoSuchRoom, make_app
from tests.protocol.conftest import calling
from tests.support.leaks import no_leaks
from tests.support.live import asked, connected, ending, heard, serving


@pytest.mark.parametrize(
    ("path", "data", "answer"),
    [
        ("/sync", 4, {"data": 5}),
        ("/typed", {"type": "say", "text": "hi"}, {"data": {"text": "HI", "number": 2}}),
        ("/void", "x", {}),
        ("/maybe", True, {"data": "yes"}),
        ("/maybe", False, {"data": None}),
        ("/either", "grüße", {"data": "grüße"}),
        ("/scoped", "a", {"data": "a resource"}),
        ("/game", {"type": "say", "text": "hi"}, {"data": {"text": "hi", "number": 0}}),
        ("/game", {"type": "move", "to": 3}, {"data": 3}),
    ],
)
async def test_the_return_value_answers_a_call(kind: ServerKind, path: str, data: object, answer: Any) -> None:
    async with calling(make_app(Journal()), path, kind) as caller:
        assert caller.hello["type"] == "hello"
        assert await caller.call(data) == {"type": "reply", "id": 1} | answer
        assert await caller.call(data) == {"type": "reply", "id": 2} | answer


async def test_a_client_that_offers_nothing_stays_in_plain_mode(kind: ServerKind) -> None:
    async with serving(make_app(Journal()), kind) as running, connected(running, "/sync") as client:
        assert client.subprotocol is None
        assert await asked(client, "4") == "5"


async def test_parts_are_messages_in_plain_mode(kind: ServerKind) -> None:
    async with serving(make_app(Journal()), kind) as running, connected(running, "/parts") as client:
        await client.send("2")
        assert [json.loads(await heard(client))["number"] for _ in range(2)] == [0, 1]


async def test_bytes_travel_behind_a_header(kind: ServerKind) -> None:
    header = b'{"type":"call","id":1}'
    async with calling(make_app(Journal()), "/bytes", kind) as caller:
        await caller.client.send(len(header).to_bytes(4, "big") + header + b"\x00\xff1")
        assert await caller.receive() == {"type": "reply", "id": 1, "bytes": b"1\xff\x00"}
        caller._ids = 1
        refused = await caller.call("AAA=")
        assert refused["error"]["code"] == "invalid_message"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("declared", {"code": "no_such_room", "message": "no room 7", "data": {"room": "7"}}),
        ("secret", {"code": "internal", "message": "internal error"}),
        ("missing", {"code": "not_found", "message": "there is none"}),
        ("forbidden", {"code": "permission_denied", "message": "not you"}),
    ],
)
async def test_an_exception_answers_its_call_and_the_connection_stays(
    kind: ServerKind, data: str, error: object
) -> None:
    async with calling(make_app(Journal()), "/fails", kind) as caller:
        assert await caller.call(data) == {"type": "error", "id": 1, "error": error}
        assert await caller.call("fine") == {"type": "reply", "id": 2, "data": "fine"}


async def test_a_sync_function_that_fails_is_answered_before_the_next_call(kind: ServerKind) -> None:
    @websocket_listener("/", errors=[NoSuchRoom])
    def fails(data: str) -> str:
        if data == "declared":
            raise NoSuchRoom(data)
        return data

    async with calling(Telex([fails]), "/", kind) as caller:
        for data in ("declared", "fine", "declared", "declared", "fine"):
            await caller.begin(data)
        assert [(await caller.receive())["id"] for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_an_error_whose_data_cannot_be_written_is_answered_without(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    class Unwritable(Exception):
        def __init__(self) -> None:
            self.row = object()

    def explain(socket: WebSocket, exc: Exception) -> object:
        return object()

    @websocket_listener("/", errors=[Unwritable], exception_handlers={ValueError: explain})
    async def fails(data: str) -> None:
        raise Unwritable if data == "declared" else ValueError

    async with calling(Telex([fails]), "/", kind) as caller:
        answers = [await caller.call(data) for data in ("declared", "handled")]
    assert [answer["error"]["code"] for answer in answers] == ["unwritable", "internal"]
    assert not any("data" in answer["error"] for answer in answers)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
async def test_the_largest_message_bounds_data(kind: ServerKind, binary: bool, size: int, fits: bool) -> None:
    @websocket_listener("/", max_message_size=1000)
    def length(data: str | bytes) -> int:
        return len(data)

    async with calling(Telex([length]), "/", kind) as caller:
        if binary:
            header = b'{"type":"call","id":1,"meta":"%s"}' % (b"x" * 2000)
            await caller.client.send(len(header).to_bytes(4, "big") + header + b"x" * size)
        else:
            await caller.begin("x" * (size - 2), meta="x" * 2000)
        if fits:
            assert (await caller.receive())["data"] == (size if binary else size - 2)
        else:
            assert (await ending(caller.client))[0] == 1009


async def test_who_asks_is_woken_when_the_connection_is_closed_here(kind: ServerKind) -> None:
    told: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def ask(socket: WebSocket) -> None:
        try:
            await socket.call("?", str, timeout=600)
        except BaseException as exc:
            told.set_result(exc)

    @websocket_listener("/")
    async def closes(data: str, socket: WebSocket) -> None:
        asking = asyncio.create_task(ask(socket))
        await asyncio.sleep(0)
        await socket.close(4998, "enough")
        await asking

    async with calling(Telex([closes]), "/", kind) as caller:
        await caller.begin("x")
        end = await asyncio.wait_for(told, 9)
        assert isinstance(end, WebSocketDisconnect)
        assert (end.code, end.reason) == (4998, "enough")


@pytest.mark.parametrize("timeout", [0, -1.0])
async def test_a_question_without_time_for_its_answer_is_refused(kind: ServerKind, timeout: float) -> None:
    @websocket_listener("/")
    async def asks(data: str, socket: WebSocket) -> str:
        with pytest.raises(ValueError, match=f"timeout={timeout}: write the seconds"):
            await socket.call("?", str, timeout=timeout)
        return "refused"

    async with calling(Telex([asks]), "/", kind) as caller:
        assert (await caller.call("x"))["data"] == "refused"


@pytest.mark.parametrize(("exc", "logged"), [(ValueError, 0), (KeyError, 1)])
async def test_an_exception_is_logged_unless_the_app_handles_it(
    kind: ServerKind, caplog: pytest.LogCaptureFixture, exc: type[Exception], logged: int
) -> None:
    def explain(socket: WebSocket, exc: Exception) -> str:
        return "explained"

    @websocket_listener("/", exception_handlers={ValueError: explain})
    async def fails(data: str) -> str:
        raise exc(data)

    async with calling(Telex([fails]), "/", kind) as caller:
        answer = await caller.call("x")
    assert answer["error"].get("data") == (None if logged else "explained")
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == logged


@pytest.mark.parametrize("data", ["declared", "fine", 5])
async def test_notifies_that_fail_give_their_credit_back(kind: ServerKind, data: object) -> None:
    @websocket_listener("/", errors=[NoSuchRoom], max_calls=4, max_invalid_messages=100)
    def fails(data: str) -> None:
        if data == "declared":
            raise NoSuchRoom(data)

    async with calling(Telex([fails]), "/", kind) as caller:
        granted = caller.hello["credit"]
        for _ in range(20):
            while not granted:
                found = await caller.receive()
                granted += found.get("n", 0)
            await caller.send({"type": "notify", "data": data})
            granted -= 1


async def test_exception_handlers_for_invalid_data_run_one_at_a_time(kind: ServerKind) -> None:
    running, most, release = 0, 0, asyncio.Event()

    async def explain(socket: WebSocket, exc: Exception) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return "explained"

    @websocket_listener("/", exception_handlers={ValidationException: explain}, max_calls=4)
    async def numbers(data: int) -> int:
        return data

    async with calling(Telex([numbers]), "/", kind) as caller:
        for number in range(100):
            await caller.begin("no number" if number % 2 else number)
        answers = [await caller.receive() for _ in range(90)]
        release.set()
        answers += [await caller.receive() for _ in range(10)]
        await caller.quiet()
    assert most == 1
    assert sorted(each["id"] for each in answers) == list(range(1, 101))
    explained = [each for each in answers if each.get("error", {}).get("data") == "explained"]
    assert {each["error"]["code"] for each in explained} == {"invalid_message"}


async def test_data_that_does_not_fit_is_answered_with_its_path(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/typed", kind) as caller:
        answer = await caller.call({"type": "say", "text": 5})
        assert (answer["error"]["code"], answer["error"]["path"]) == ("invalid_message", "$.text")
        await caller.send({"type": "notify", "data": {}})
        answer = await caller.receive()
        assert (answer["about"], answer["error"]["code"]) == ("notify", "invalid_message")
        assert "id" not in answer


@pytest.mark.parametrize(
    ("frame", "code", "has_id"),
    [
        ('{"type":"call","id":0,"data":1}', "bad_frame", False),
        ('{"type":"call","id":9007199254740992,"data":1}', "bad_frame", False),
        ('{"type":"call","id":true,"data":1}', "bad_frame", False),
        ('{"type":"call","id":5,"data":1,"timeout":-1}', "bad_frame", True),
        ('{"type":"call","id":5,"data":1,"key":"k"}', "bad_frame", True),
        ('{"type":"call","id":5,"data":1,"meta":"%s"}' % ("x" * 3000), "bad_frame", True),
        ('{"type":"call","id":5}', "invalid_message", True),
        ('{"type":"call","id":5,"data":null}', "invalid_message", True),
        ('{"type":"call","type":"notify","id":5,"data":1}', "bad_frame", False),
        ('{"type":"more","id":1,"n":-1}', "bad_frame", False),
        ('{"type":"cancel","id":7}', "bad_frame", False),
        ('{"type":"reply","id":7,"data":1}', "bad_frame", False),
        ('{"type":"open","c":1}', "unknown_type", False),
        ('{"id":1}', "invalid_message", False),
        ("[1]", "invalid_message", False),
        ("nonsense", "invalid_message", False),
        (b"\x00\x00", "bad_frame", False),
        (b"\xff\xff\xff\xff{}", "bad_frame", False),
        (b"\x00\x00\x00\x20{}", "bad_frame", False),
    ],
)
async def test_what_is_no_frame_is_answered_with_an_error(
    kind: ServerKind, frame: str | bytes, code: str, has_id: bool
) -> None:
    async with calling(make_app(Journal()), "/sync", kind) as caller:
        await caller.client.send(frame)
        answer = await caller.receive()
        assert (answer["type"], answer["error"]["code"]) == ("error", code)
        assert answer.get("id") == (5 if has_id else None)
        await caller.send({"type": "call", "id": 6, "data": 1})
        assert await caller.receive() == {"type": "reply", "id": 6, "data": 2}


@pytest.mark.parametrize(
    ("frame", "has_id"),
    [
        ('{"type":"call", "id":5 ,"data":NESTED}', True),
        ('{"id":5,"key":"data","type":"call","data":NESTED}', True),
        ('{"type":"call","data":NESTED,"id":5}', False),
        ('{"type":"notify","id":5,"data":NESTED}', False),
        ('{"type":"call","id":5,"meta":{"a":1,"data":NESTED}}', False),
    ],
)
async def test_a_call_whose_data_is_nested_too_deeply_is_answered(kind: ServerKind, frame: str, has_id: bool) -> None:
    async with calling(make_app(Journal()), "/sync", kind) as caller:
        await caller.client.send(frame.replace("NESTED", "[" * 50_000 + "]" * 50_000))
        answer = await caller.receive()
        assert answer["error"] == {"code": "invalid_message", "message": "the message is nested too deeply"}
        assert answer.get("id") == (5 if has_id else None)
        await caller.send({"type": "call", "id": 6, "data": 1})
        assert await caller.receive() == {"type": "reply", "id": 6, "data": 2}


async def test_an_id_counts_once(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/sync", kind) as caller:
        await caller.send({"type": "call", "id": 3, "data": 1})
        assert (await caller.receive())["id"] == 3
        for again in (3, 2):
            await caller.send({"type": "call", "id": again, "data": 1})
            answer = await caller.receive()
            assert "id" not in answer  # with an id it would end another call
            assert answer["error"]["code"] == "bad_frame"


async def test_ten_invalid_messages_in_a_row_close(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/sync", kind) as caller:
        for _ in range(10):
            await caller.client.send("nonsense")
        for _ in range(10):
            assert (await caller.receive())["error"]["code"] == "invalid_message"
        assert (await ending(caller.client))[0] == 1007


# -- cancels, time limits, windows


async def test_a_cancel_reaches_a_call_that_runs_and_one_that_waits(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(make_app(journal), "/slow", kind) as caller:
        first, second = await caller.begin("wait"), await caller.begin("second")
        third = await caller.begin("third")
        await journal.until("begin wait")
        await caller.send({"type": "cancel", "id": second})
        assert (await caller.receive()) == _error(second, "cancelled", "the call was cancelled")
        await caller.send({"type": "cancel", "id": first})
        assert (await caller.receive()) == _error(first, "cancelled", "the call was cancelled")
        assert await caller.receive() == {"type": "reply", "id": third, "data": "third"}
        await caller.send({"type": "cancel", "id": third})  # late: ignored
        await caller.quiet()
    assert journal.entries == ["begin wait", "end wait", "begin third", "end third"]


async def test_a_call_ends_at_the_shorter_of_the_two_limits(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/limited", kind) as caller:
        assert (await caller.call(30.0))["error"]["code"] == "timeout"
        assert (await caller.call(30.0, timeout=60))["error"]["code"] == "timeout"
        assert (await caller.call(0.0))["data"] == "done"
    async with calling(make_app(Journal()), "/slow", kind) as caller:
        assert (await caller.call("wait", timeout=0.01))["error"]["code"] == "timeout"
        assert (await caller.call("next"))["data"] == "next"


async def test_calls_beyond_the_credit_are_refused_and_the_others_are_answered(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(make_app(journal, max_calls=3), "/slow", kind) as caller:
        assert caller.hello["credit"] == 3
        ids = [await caller.begin("wait"), *[await caller.begin(str(number)) for number in range(4)]]
        for refused in ids[3:]:
            answer = await caller.receive()
            assert (answer["id"], answer["error"]["code"]) == (refused, "too_many_calls")
        await caller.send({"type": "cancel", "id": ids[0]})
        assert [(await caller.receive())["id"] for _ in range(3)] == ids[:3]
        assert (await caller.call("more"))["data"] == "more"


async def test_notifies_get_their_credit_back_and_a_flood_of_them_closes(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(make_app(journal, max_calls=4), "/slow", kind) as caller:
        for number in range(4):
            await caller.send({"type": "notify", "data": str(number)})
        assert [await caller.receive() for _ in range(2)] == [{"type": "credit", "n": 2}] * 2
        await caller.send({"type": "notify", "data": "last"})
        await caller.send({"type": "notify", "data": "wait"})
        await journal.until("begin wait")
        for _ in range(20):
            await caller.send({"type": "notify", "data": "more"})
        assert await caller.receive() == {"type": "credit", "n": 2}
        assert (await ending(caller.client))[0] == 1008
    await journal.until("end wait")
    assert "begin more" not in journal.entries


@pytest.mark.parametrize("max_concurrency", [1, 4])
async def test_a_handler_asks_its_own_client_while_the_window_is_full(kind: ServerKind, max_concurrency: int) -> None:
    async with calling(make_app(Journal(), max_concurrency=max_concurrency), "/ask", kind) as caller:
        for number in range(4):
            await caller.begin(str(number))
        answers: list[Any] = []
        while len(answers) < 4:
            found = await caller.receive()
            if found["type"] == "call":
                await caller.send({"type": "reply", "id": found["id"], "data": {"text": found["data"]["text"]}})
            else:
                answers.append(found)
        assert sorted(each["id"] for each in answers) == [1, 2, 3, 4]
        assert answers[0]["data"] == {"text": "what of 0?", "number": 1}


async def test_what_the_client_answers_reaches_the_handler_as_errors(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/ask", kind) as caller:
        for answer in (
            {"type": "reply", "data": {"text": 5}},
            {"type": "reply"},
            {"type": "error", "error": {"code": "no"}},
        ):
            call_id = await caller.begin("x")
            asked_for = await caller.receive()
            await caller.send(answer | {"id": asked_for["id"]})
            assert await caller.receive() == _error(call_id, "internal", "internal error")
            await caller.send({"type": "reply", "id": asked_for["id"], "data": {"text": "again"}})  # ignored
        await caller.quiet()


async def test_a_handler_sends_beside_its_answer(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/tell", kind) as caller:
        await caller.begin("x")
        assert [await caller.receive() for _ in range(5)] == [
            {"type": "notify", "data": {"text": "x", "number": 0}},
            {"type": "notify", "data": "123"},
            {"type": "notify", "data": {"n": 123}},
            {"type": "notify", "bytes": b"\x00\x01"},
            {"type": "reply", "id": 1, "data": "x"},
        ]


# -- answers in parts


async def test_parts_wait_for_credit_and_calls_go_on_beside_them(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(make_app(journal), "/parts", kind) as caller:
        endless = await caller.begin(1_000_000)
        assert [(await caller.receive())["data"]["number"] for _ in range(16)] == list(range(16))
        await caller.quiet()
        short = await caller.begin(1)
        assert [(await caller.receive())["type"] for _ in range(2)] == ["item", "end"]
        await caller.send({"type": "more", "id": endless, "n": 2})
        assert [(await caller.receive())["data"]["number"] for _ in range(2)] == [16, 17]
        await caller.send({"type": "cancel", "id": endless})
        assert await caller.receive() == _error(endless, "cancelled", "the call was cancelled")
        await caller.send({"type": "more", "id": short, "n": 2})  # late: ignored
        await caller.quiet()
    assert journal.entries == ["closed"] * 2


async def test_at_most_eight_answers_in_parts_are_open(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/parts", kind) as caller:
        for _ in range(9):
            await caller.begin(100)
        frames = [await caller.receive() for _ in range(8 * 16 + 1)]
        refused = [each for each in frames if each["type"] == "error"]
        assert [(each["id"], each["error"]["code"]) for each in refused] == [(9, "too_many_calls")]


# -- ends


@pytest.mark.parametrize("path", ["/slow", "/ask", "/parts"])
async def test_nothing_is_left_when_the_client_goes_in_the_middle(kind: ServerKind, path: str) -> None:
    journal = Journal()
    app = make_app(journal)
    async with serving(app, kind) as running:
        async with connected(running, path, subprotocols=["telex.v1"]):
            pass
        async with no_leaks(), connected(running, path, subprotocols=["telex.v1"]) as client:
            await heard(client)
            data: object = 100 if path == "/parts" else "wait"
            for number in range(1, 4):
                await client.send(json.dumps({"type": "call", "id": number, "data": data, "timeout": 60}))
            if path == "/slow":
                await journal.until("begin wait")
            else:
                await heard(client)
            client.transport.abort()
        assert not tuple(app.connections)
    if path == "/slow":
        assert journal.entries == ["begin wait", "end wait"]


async def test_a_message_dependency_is_closed_after_the_answer(kind: ServerKind) -> None:
    journal = Journal()
    async with calling(make_app(journal), "/scoped", kind) as caller:
        assert (await caller.call("a"))["data"] == "a resource"
        await journal.until("released")
    assert journal.entries == ["opened", "released"]


async def test_a_cancel_that_races_the_reply_leaves_one_final_frame(kind: ServerKind) -> None:
    async with calling(make_app(Journal()), "/slow", kind) as caller:
        for _ in range(200):
            call_id = await caller.begin("quick")
            await caller.send({"type": "cancel", "id": call_id})
            assert (await caller.receive())["id"] == call_id
        await caller.quiet()


async def test_closing_the_app_ends_calls_that_run(kind: ServerKind) -> None:
    journal = Journal()
    app = make_app(journal)
    async with calling(app, "/slow", kind) as caller:
        await caller.begin("wait")
        await journal.until("begin wait")
        draining = asyncio.create_task(app.connections.drain(within=0))
        assert (await ending(caller.client))[0] == 1012
        await draining
        await journal.until("end wait")


# -- negotiation


async def test_a_handler_behind_middleware_answers_calls(kind: ServerKind) -> None:
    def through(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        return middleware

    @websocket_listener("/", middleware=[through])
    async def echo(data: str) -> str:
        return data

    async with calling(Telex([echo]), "/", kind) as caller:
        assert (await caller.call("a"))["data"] == "a"


async def test_a_handler_that_names_its_own_subprotocols_stays_in_plain_mode(kind: ServerKind) -> None:
    async def accept(socket: WebSocket) -> None:
        await socket.accept(["chat"])

    @websocket_listener("/", connection_accept_handler=accept)
    async def echo(data: str) -> str:
        return data

    async with (
        serving(Telex([echo]), kind) as running,
        connected(running, "/", subprotocols=["telex.v1", "chat"]) as client,
    ):
        assert client.subprotocol == "chat"
        assert await asked(client, "plain") == "plain"


async def test_a_call_to_a_client_in_plain_mode_says_what_it_needs(kind: ServerKind) -> None:
    @websocket_listener("/")
    async def ask(data: str, socket: WebSocket) -> str:
        with pytest.raises(ImproperlyConfiguredException, match="needs a client that offers the subprotocol"):
            await socket.call(data)
        await socket.notify({"data": data})
        return "refused"

    async with serving(Telex([ask]), kind) as running, connected(running, "/") as client:
        assert await asked(client, "x") == '{"data":"x"}'
        assert await heard(client) == "refused"


async def test_a_close_in_a_handler_ends_every_call(kind: ServerKind) -> None:
    @websocket_listener("/", max_concurrency=2)
    async def end(data: str, socket: WebSocket) -> None:
        if data == "close":
            await socket.close(4000, "enough")
        await asyncio.Event().wait()

    async with calling(Telex([end]), "/", kind) as caller:
        await caller.begin("wait")
        await caller.begin("close")
        assert await ending(caller.client) == (4000, "enough")


@pytest.mark.parametrize("code", ["", "Not Found", "_hidden", "9lives", "a" * 65, "é", "a-b", 404])
def test_the_code_of_an_error_is_a_word(code: Any) -> None:
    with pytest.raises(ValueError, match="is a word as 'not_found'"):
        checked_code(code)


@pytest.mark.parametrize("code", [*ERROR_CODES, "room_is_full", "e42"])
def test_codes_of_telex_and_of_their_form_are_words(code: str) -> None:
    assert checked_code(code) == code


def test_a_declared_error_whose_code_is_no_word_is_an_error() -> None:
    class Full(Exception):
        code = "Room is full!"

    @websocket_listener("/", errors=[Full])
    async def echo(data: str) -> str:
        return data

    with pytest.raises(ImproperlyConfiguredException, match=r"echo.*errors=\[Full\]: the code of an error is a word"):
        Telex([echo])


def test_a_declared_error_has_a_code_of_its_own() -> None:
    class NotFound(Exception):
        """Its code would be that of Telex."""

    @websocket_listener("/", errors=[NotFound])
    async def echo(data: str) -> str:
        return data

    with pytest.raises(ImproperlyConfiguredException, match="has the code 'not_found', which is Telex's own"):
        Telex([echo])


def _error(call_id: int, code: str, message: str) -> dict[str, object]:
    return {"type": "error", "id": call_id, "error": {"code": code, "message": message}}
