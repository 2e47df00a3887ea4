"""What an app sends is checked: subprotocols, headers, close codes, reasons, denials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import Telex, WebSocket, websocket
from telex.events import accept_event, close_event, denial_events, offers_denial
from telex.status_codes import cut_close_reason, is_sendable_close_code
from tests.support.live import connected, denied, serving

SENDABLE = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
UNSENDABLE = [-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535, 70000]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_a_reason_is_cut_to_123_bytes_at_a_character_boundary(reason: str) -> None:
    cut = close_event(1000, reason)["reason"]
    whole = reason.encode("utf-8", "replace").decode()
    assert len(cut.encode()) <= 123
    assert whole.startswith(cut)
    assert cut == whole or len((cut + whole[len(cut)]).encode()) > 123


@given(st.text(min_size=100))
def test_a_long_reason_uses_all_the_room_there_is(reason: str) -> None:
    assert len(cut_close_reason(reason).encode()) >= min(len(reason.encode("utf-8", "replace")), 120)


def test_no_reason_is_the_empty_one() -> None:
    assert close_event(1000, None) == {"type": "websocket.close", "code": 1000, "reason": ""}


@pytest.mark.parametrize("code", SENDABLE)
def test_a_code_that_may_be_sent(code: int) -> None:
    assert is_sendable_close_code(code)
    assert close_event(code, "")["code"] == code


@pytest.mark.parametrize("code", UNSENDABLE)
def test_a_code_that_may_not_be_sent_is_refused(code: int) -> None:
    assert not is_sendable_close_code(code)
    with pytest.raises(ValueError, match=rf"close code {code} may not be sent: use 1000 to 1003"):
        close_event(code, "")


# -- accept


def test_subprotocols() -> None:
    scope = {"subprotocols": ["b", "a"]}
    assert accept_event(scope, None, None)["subprotocol"] is None
    assert accept_event(scope, "a", None)["subprotocol"] == "a"
    assert accept_event(scope, ["c", "a", "b"], None)["subprotocol"] == "a"
    assert accept_event(scope, ["c"], None)["subprotocol"] is None
    assert accept_event({}, ["c"], None)["subprotocol"] is None
    with pytest.raises(ValueError, match=r"'c' was not offered by the client, which offers \['b', 'a'\]: pass a list"):
        accept_event(scope, "c", None)


def test_headers_are_lower_cased_and_may_be_pairs_or_a_mapping() -> None:
    assert accept_event({}, None, {"X-A": "b"})["headers"] == [(b"x-a", b"b")]
    assert accept_event({}, None, [(b"X-A", b"\xff"), ("X-A", "ü")])["headers"] == [
        (b"x-a", b"\xff"),
        (b"x-a", b"\xfc"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "connection",
        "Upgrade",
        "Sec-WebSocket-Accept",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "transfer-encoding",
        "content-length",
    ],
)
def test_the_servers_own_headers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"header '{name.lower()}' is set by the server"):
        accept_event({}, None, {name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nb", "ü", "a\x00"])
def test_a_header_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a token \(RFC 9110 section 5.1\)"):
        accept_event({}, None, {name: "x"})


@given(st.text())
def test_a_header_value_is_latin_1_without_controls_or_refused(value: str) -> None:
    safe = all((" " <= char <= "\xff" and char != "\x7f") or char == "\t" for char in value)
    if safe:
        assert accept_event({}, None, {"x-a": value})["headers"] == [(b"x-a", value.encode("latin-1"))]
    else:
        with pytest.raises(ValueError, match=r"has control characters|is not Latin-1"):
            accept_event({}, None, {"x-a": value})


# -- denial


def test_whether_a_server_offers_denials() -> None:
    assert offers_denial({"extensions": {"websocket.http.response": {}}})
    assert not offers_denial({"extensions": None})
    assert not offers_denial({})


def test_a_denial_is_json_or_bytes_as_they_are() -> None:
    start, body = denial_events(401, {"detail": "ü"}, {"WWW-Authenticate": "Bearer"})
    assert start["status"] == 401
    assert start["headers"] == [
        (b"www-authenticate", b"Bearer"),
        (b"content-type", b"application/json"),
        (b"content-length", b"15"),
    ]
    assert body["body"] == '{"detail":"ü"}'.encode()
    start, body = denial_events(403, b"no", {"content-type": "text/plain"})
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    assert body["body"] == b"no"
    with pytest.raises(ValueError, match="is set by the server"):
        denial_events(403, b"", {"content-length": "5"})


# -- over a socket


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x=1", "a\x00", "a\nb"])
async def test_nothing_is_injected_into_the_answer(value: str) -> None:
    @websocket("/header")
    async def by_header(socket: WebSocket) -> None:
        await socket.accept(headers={"x-a": value})

    @websocket("/protocol")
    async def by_protocol(socket: WebSocket) -> None:
        await socket.accept(value)

    async with serving(Telex([by_header, by_protocol])) as running:
        for path in ("/header", "/protocol"):
            denial = await denied(running, path)
            assert denial.status == 500
            assert "set-cookie" not in denial.headers
            assert denial.json() == {"status_code": 500, "detail": "Internal Server Error"}


async def test_headers_and_subprotocol_of_an_accept_arrive() -> None:
    @websocket("/")
    async def handle(socket: WebSocket) -> None:
        await socket.accept(["b"], headers={"X-Served-By": "telex"})

    async with serving(Telex([handle])) as running, connected(running, subprotocols=["a", "b"]) as client:
        assert client.subprotocol == "b"
        assert client.response is not None
        assert client.response.headers["x-served-by"] == "telex"


def test_a_close_reason_has_no_control_characters() -> None:
    assert cut_close_reason("a\r\nb\x00c\x1b[31m\x7f\u00e9") == "a  b c [31m \u00e9"
