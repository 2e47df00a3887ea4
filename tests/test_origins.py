"""The Origin check, by examples and by properties."""

from __future__ import annotations

import string
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from telex import (
    ImproperlyConfiguredException,
    PermissionDeniedException,
    Router,
    Telex,
    WebSocket,
    websocket,
    websocket_listener,
)
from telex.origins import compile_origin_check
from tests.support.live import asked, connected, denied, ending, serving, talking
from tests.support.peer import scope


def passes(
    origins: list[str], *, host: str | None = "app.example", scheme: str = "ws", allowed: Sequence[str] = ()
) -> bool:
    check = compile_origin_check(allowed, "here")
    if check is None:
        return True
    headers = [(b"origin", origin.encode("latin-1")) for origin in origins]
    headers += [(b"host", host.encode("latin-1"))] if host is not None else []
    try:
        check(HTTPConnection({**scope(), "headers": headers, "scheme": scheme}))
    except PermissionDeniedException:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "host", "scheme"),
    [
        ("http://app.example", "app.example", "ws"),
        ("http://app.example:80", "app.example", "ws"),
        ("http://APP.example", "app.EXAMPLE", "ws"),
        ("http://app.example:8000", "app.example:8000", "ws"),
        ("https://app.example", "app.example", "wss"),
        ("https://app.example", "app.example:443", "wss"),
        ("https://app.example", "app.example", "ws"),  # a proxy that ends TLS and does not say so
        ("http://[::1]:8000", "[::1]:8000", "ws"),
        ("http://127.0.0.1", "127.0.0.1", "ws"),
    ],
)
def test_the_requests_own_origin_passes(origin: str, host: str, scheme: str) -> None:
    assert passes([origin], host=host, scheme=scheme)


def test_a_request_without_an_origin_passes() -> None:
    assert passes([])


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "app.example"),
        ("null", "app.example"),
        ("", "app.example"),
        ("http://app.example.evil", "app.example"),
        ("http://app.example@evil", "app.example"),
        ("http://evil@app.example", "app.example"),
        ("http://appXexample", "app.example"),
        ("http://app.example:81", "app.example"),
        ("http://app.example:0", "app.example:80"),
        ("http://app.example:99999", "app.example"),
        ("http://app.example:x", "app.example"),
        ("http://app.example/path", "app.example"),
        ("http://app.example?x", "app.example"),
        ("http://app.example#x", "app.example"),
        ("file://app.example", "app.example"),
        ("ftp://app.example", "app.example"),
        ("//app.example", "app.example"),
        ("app.example", "app.example"),
        ("http://[::1", "[::1"),
        ("http://app.example", "app.example/x"),
        ("http://app.example", "x@app.example"),
        ("http://app.example", "app.example?x"),
        ("http://app.example", "app.example:x"),
        ("http://app.example", "app.example#x"),
    ],
)
def test_a_foreign_or_malformed_origin_is_refused(origin: str, host: str) -> None:
    assert not passes([origin], host=host)


def test_two_origins_or_no_host_are_refused() -> None:
    assert not passes(["http://app.example", "http://app.example"])
    assert not passes(["http://app.example"], host=None)


@pytest.mark.parametrize(
    ("entry", "origin", "fits"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://a.example", "https://a.example:444", False),
        ("https://A.example/", "https://a.EXAMPLE", True),
        ("https://a.example:444", "https://a.example:444", True),
        ("a.example", "https://a.example", True),
        ("a.example", "http://a.example:8000", True),
        ("a.example:8000", "http://a.example:8000", True),
        ("a.example:8000", "http://a.example", False),
        ("a.example", "https://b.a.example", False),
        ("*.example", "https://a.example", True),
        ("*.example", "https://a.b.example", True),
        ("*.example", "https://example", False),
        ("*.example", "https://evilexample", False),
        ("https://*.example", "https://a.example", True),
        ("https://*.example", "http://a.example", False),
        ("*", "null", True),
    ],
)
def test_an_entry_of_allowed_origins(entry: str, origin: str, fits: bool) -> None:
    assert passes([origin], host="other.host", allowed=[entry]) is fits


@pytest.mark.parametrize("entry", ["https://a.example/path", "a@b", "", "https://", "a.*.example", "**.example", "a*"])
def test_an_entry_that_can_match_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(
        ImproperlyConfiguredException, match=r"here: allowed_origins entry .* matches no origin: write 'https:"
    ):
        compile_origin_check([entry], "here")


label = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
hosts = st.lists(label, min_size=1, max_size=3).map(".".join)


@given(st.text(st.characters(max_codepoint=255)), hosts)
def test_no_text_whatever_passes_unless_it_is_the_host_itself(origin: str, host: str) -> None:
    allowed = {
        f"{scheme}://{host}{port}" for scheme, port in [("http", ""), ("http", ":80"), ("https", ""), ("https", ":443")]
    }
    if origin.lower() not in allowed:
        assert not passes([origin], host=host)


@given(hosts, hosts, st.booleans())
def test_another_host_never_passes_and_the_same_always_does(host: str, other: str, secure: bool) -> None:
    scheme = "https" if secure else "http"
    assert passes([f"{scheme}://{host}"], host=host, scheme="wss" if secure else "ws")
    if other != host:
        assert not passes([f"{scheme}://{other}"], host=host, scheme="wss" if secure else "ws")
        assert passes([f"{scheme}://{other}"], host=host, allowed=[other])


async def test_allowed_origins_are_layered() -> None:
    async def handle(socket: WebSocket) -> None:
        await socket.accept()

    strict = websocket("/strict", allowed_origins=[])(handle)
    usual = websocket("/usual")(handle)
    app = Telex([Router(route_handlers=[strict, usual], allowed_origins=["https://a.example"])], allowed_origins=["*"])
    async with serving(app) as running:
        assert (await denied(running, "/strict", origin="https://a.example")).status == 403
        assert (await denied(running, "/usual", origin="https://b.example")).status == 403
        async with connected(running, "/usual", origin="https://a.example") as client:
            assert await ending(client) == (1000, "")


@pytest.mark.parametrize(
    ("origin", "scheme", "passing"),
    [
        ("https://app.example:8443", "wss", True),
        ("http://app.example:8000", "ws", True),
        ("http://app.example:8443", "wss", False),
        ("https://app.example:8000", "ws", False),
    ],
)
def test_with_an_explicit_port_the_scheme_counts_too(origin: str, scheme: str, passing: bool) -> None:
    assert passes([origin], host=origin.partition("://")[2], scheme=scheme) is passing


def test_the_log_names_the_origin_and_what_it_was_compared_with(caplog: pytest.LogCaptureFixture) -> None:
    assert not passes(["https://evil.example"], host="app.example:8000", scheme="ws")
    (record,) = caplog.records
    for part in ("https://evil.example", "'ws'", "app.example:8000", "here"):
        assert part in record.getMessage()
    caplog.clear()
    assert not passes(["x" * 5000])
    assert len(caplog.records[0].getMessage()) < 600


@pytest.mark.parametrize("origin", ["null", "file://"])
async def test_an_origin_without_a_host_matches_only_its_own_word(origin: str) -> None:
    @websocket_listener("/")
    async def listen(data: str) -> str:
        return "in"

    async with talking(Telex([listen], allowed_origins=[origin]), headers={"Origin": origin}) as client:
        assert await asked(client, "x") == "in"
    other = "file://" if origin == "null" else "null"
    for allowed in ([other], ["https://null", "*.null"], []):
        async with serving(Telex([listen], allowed_origins=allowed)) as running:
            assert (await denied(running, headers={"Origin": origin})).status == 403
