"""Handlers that fail, and connections that end in unusual ways.

An exception is logged once, with its traceback; the client gets no details.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from tests.contract.site import ON_BOTH_PATHS, Site, closing_of, said
from tests.contract.subjects.errors import AFTER_ACCEPT, AT_ONCE, BEFORE_ACCEPT, CLOSES_ITSELF, WHEN_GONE
from tests.support.raw import PING, TEXT, Close, close_frame, frame


def paths_of(handlers: list[Any]) -> list[str]:
    return [f"/errors{path}" for handler in handlers for path in handler.paths]


SECRETS = ("SECRET", "secret", "Boom", "Error", "Traceback", ".py")


async def assert_logged_once(site: Site) -> None:
    await site.settled()
    records = await site.records()
    assert len(records) == 1, records
    ((level, logger, text),) = records
    assert (level, logger) == ("ERROR", "telex")
    assert text.count("Traceback (most recent call last)") >= 1


@pytest.mark.parametrize("path", paths_of(BEFORE_ACCEPT))
async def test_an_exception_before_accept_is_a_500_without_details(site: Site, path: str) -> None:
    response = await site.handshake(path)
    assert response.status == 500
    assert json.loads(response.body) == {"status_code": 500, "detail": "Internal Server Error"}
    assert not [secret for secret in SECRETS if secret in str(response.headers)]
    await assert_logged_once(site)


STALLS = {
    # sends nothing, and does not say so, when a text cannot be encoded: the handler waits until the client leaves
    ("granian", "/errors/after/half-a-pair"),
    ("granian", "/errors/after/half-a-pair-sent"),
    # waits in close until a read that is under way has ended
    ("granian", "/errors/closes-itself/concurrent"),
}
"""Where a server itself is incomplete: all is cleaned up once the client leaves."""


@pytest.mark.parametrize("path", paths_of(AFTER_ACCEPT))
async def test_an_exception_after_accept_closes_with_1011_without_details(site: Site, path: str) -> None:
    async with site.connect(path) as client:
        await client.send("go")
        if (site.kind.name, path) in STALLS:
            return
        close = await closing_of(client)
    assert close == Close(1011, "internal error")
    await assert_logged_once(site)


@pytest.mark.parametrize("path", paths_of(AT_ONCE))
async def test_an_exception_in_on_accept_closes_with_1011(site: Site, path: str) -> None:
    async with site.connect(path) as client:
        assert await closing_of(client) == Close(1011, "internal error")
    await assert_logged_once(site)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("path", paths_of(WHEN_GONE))
async def test_an_exception_after_the_client_has_left_is_logged(site: Site, path: str, how: str) -> None:
    async with site.raw(path) as client:
        await client.send(frame(TEXT, b"hello"))
        assert (await client.read_frame()).payload == b"hello"
        if how == "reset":
            client.reset()
        else:
            await client.send(close_frame(1000))
            assert (await client.read_close()).code == 1000
    await assert_logged_once(site)


async def test_what_was_sent_before_the_failure_arrives(site: Site) -> None:
    for path in ("raw-sending", "stream", "stream-not-encodable", "started-stream"):
        async with site.connect(f"/errors/after/{path}") as client:
            assert await said(client, "go") == "so far"
            assert await closing_of(client) == Close(1011, "internal error")
    assert len(await site.records()) == 4


# case: status and detail of the denial, code and reason of the close, whether it is logged
MEANT = {
    "forbidden": ((403, "members only"), Close(4403, "members only"), False),
    "not-found": ((404, "no such room"), Close(4404, "no such room"), False),
    "teapot": ((418, "short and stout"), Close(4418, "short and stout"), False),
    "starlette-http": ((402, "pay first"), Close(4402, "pay first"), False),
    "starlette-websocket": ((403, "from starlette"), Close(4010, "from starlette"), False),
    "websocket": ((403, "bye"), Close(4321, "bye"), False),
    "websocket-long": ((403, "é" * 100), Close(4321, "é" * 61), False),
    "websocket-unsendable": ((403, "gone"), Close(1011, "gone"), False),
    "websocket-nonsense": ((403, "far"), Close(1011, "far"), False),
    "http-long": ((403, "é" * 100), Close(4403, "é" * 61), False),
    "http-lines": ((403, "one\r\nset-cookie: evil=1"), Close(4403, "one  set-cookie: evil=1"), False),
    "http-nonsense": ((500, "what?"), Close(1011, "what?"), True),
    "disconnect": ((403, "as if it had left"), Close(1000, "as if it had left"), False),
    "grouped": ((403, "inside"), Close(4403, "inside"), False),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("case", MEANT)
async def test_exceptions_say_how_it_ends(site: Site, case: str) -> None:
    (status, detail), close, is_logged = MEANT[case]
    response = await site.handshake(f"/errors/meant/before/{case}")
    assert response.status == status
    assert json.loads(response.body)["detail"] == detail
    assert response.header("set-cookie") is None
    async with site.connect(f"/errors/meant/after/{case}") as client:
        await client.send("go")
        assert await closing_of(client) == close
    assert len(await site.records()) == 2 * is_logged


# -- close codes and reasons


@ON_BOTH_PATHS
@pytest.mark.parametrize("code", [1000, 1001, 1003, 1008, 1011, 1012, 1013, 3000, 3999, 4000, 4999])
async def test_a_code_that_may_be_sent_arrives(site: Site, code: int) -> None:
    async with site.connect("/errors/close") as client:
        await client.send(json.dumps([code, "so"]))
        assert await closing_of(client) == Close(code, "so")


@ON_BOTH_PATHS
@pytest.mark.parametrize("path", ["/errors/close", "/errors/close-event"])
@pytest.mark.parametrize("code", [-1, 0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535, 65536, 70000])
async def test_a_code_that_may_not_be_sent_raises_and_the_connection_ends(site: Site, code: int, path: str) -> None:
    async with site.connect(path) as client:
        await client.send(json.dumps([code, ""]))
        assert await closing_of(client) == Close(1011, "internal error")
    ((_, _, text),) = await site.records()
    assert f"close code {code} may not be sent" in text


LONG_REASONS = {
    "fits": ("a" * 123, "a" * 123),
    "a-byte-too-long": ("a" * 124, "a" * 123),
    "far-too-long": ("a" * 100_000, "a" * 123),
    "two-bytes-each": ("é" * 62, "é" * 61),
    "four-bytes-each": ("🙂" * 31, "🙂" * 30),
    "cut-in-the-middle": ("a" * 121 + "🙂", "a" * 121),
    "cut-exactly": ("a" * 119 + "🙂" + "b", "a" * 119 + "🙂"),
}


@pytest.mark.parametrize("row", LONG_REASONS)
async def test_a_reason_is_cut_at_a_character(site: Site, row: str) -> None:
    reason, arrives = LONG_REASONS[row]
    async with site.connect("/errors/close") as client:
        await client.send(json.dumps([4000, reason]))
        assert await closing_of(client) == Close(4000, arrives)


async def test_a_reason_that_is_no_text_for_a_frame_does_not_lose_the_close(site: Site) -> None:
    for name, arrives in {"half-a-pair": "a?b", "nul": "a b", "lines": "a  b"}.items():
        async with site.connect("/errors/close-because") as client:
            await client.send(name)
            assert await closing_of(client) == Close(4000, arrives)


# -- after the close


@pytest.mark.parametrize("path", paths_of(CLOSES_ITSELF))
async def test_a_send_after_the_handlers_own_close_raises(site: Site, path: str) -> None:
    async with site.connect(path) as client:
        await client.send("hello")
        if (site.kind.name, path) in STALLS:
            return
        assert await closing_of(client) == Close(4001, "enough")
    await site.until("left 4001 enough")
    assert (await site.notes())[:2] == ["got hello", "refused send_text"]
    assert sorted(await site.notes()) == [
        "got hello",
        "left 4001 enough",
        "refused accept",
        "refused receive",
        "refused receive_text",
        "refused send_text",
    ]


async def test_nothing_that_comes_after_a_clients_close_is_handled(site: Site) -> None:
    async with site.raw("/errors/counted") as client:
        late = frame(TEXT, b"late") + frame(PING, b"late") + close_frame(1000) + close_frame(4000, b"again")
        await client.send(frame(TEXT, b"hello") + close_frame(4999, b"bye") + late)
        await client.read_close()
        await client.read_to_end()
    await site.settled()
    assert [note for note in await site.notes() if "late" in note] == []
    assert len([note for note in await site.notes() if note.startswith("left")]) == 1


@pytest.mark.parametrize("path", paths_of(CLOSES_ITSELF))
async def test_nothing_that_comes_after_the_servers_close_is_handled(site: Site, path: str) -> None:
    async with site.raw(path) as client:
        await client.send(frame(TEXT, b"hello"))
        if (site.kind.name, path) in STALLS:
            return
        assert await client.read_close() == Close(4001, "enough")
        with contextlib.suppress(ConnectionError):  # granian waits for no answer to its close
            await client.send(frame(TEXT, b"late") + frame(PING, b"late"))
            await client.send(close_frame(4001) + close_frame(1000))
            await client.read_to_end()
    await site.settled()
    notes = await site.notes()
    assert [note for note in notes if note.startswith(("left", "got"))] == ["got hello", "left 4001 enough"]


@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_every_send_to_a_client_that_left_raises(site: Site, how: str) -> None:
    async with site.raw("/errors/sends-on") as client:
        assert (await client.read_frame()).payload == b"on and on"
        if how == "reset":
            client.reset()
        elif how == "close":
            await client.send(close_frame(4321))
        else:
            client.close_sending()
        await site.settled()
    ((told, code),) = (note.split() for note in await site.notes())
    assert told == "told"
    # A send that notices it first, as on uvicorn, does not know the code.
    assert int(code) in ({4321, 1006} if how == "close" else {1005, 1006})


# -- what JSON does not have


async def test_what_is_no_number_is_written_as_null(site: Site) -> None:
    async with site.connect("/errors/nan") as client:
        assert await said(client, "go") == "[null,null,null]"
