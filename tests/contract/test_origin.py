"""Which pages may connect, and which forged Host headers are refused.

A refusal comes before any code of the app: middleware, guards, dependencies, handlers.
"""

from __future__ import annotations

import json

import pytest

from tests.contract.site import ON_BOTH_PATHS, Site, said

FOREIGN = {
    "another-host": "http://evil.com",
    "null": "null",
    "empty": "",
    "blank": " ",
    "own-host-as-prefix": "http://app.test.evil.com",
    "own-host-as-suffix": "http://evil-app.test",
    "own-host-as-subdomain": "http://sub.app.test",
    "own-host-as-user": "http://app.test@evil.com",
    "own-host-after-a-user": "http://evil.com@app.test",
    "own-host-in-the-path": "http://evil.com/app.test",
    "own-host-in-the-query": "http://evil.com?app.test",
    "own-host-in-the-fragment": "http://evil.com#app.test",
    "with-a-path": "http://app.test/",
    "with-a-query": "http://app.test?",
    "another-port": "http://app.test:8001",
    "port-zero": "http://app.test:0",
    "port-too-large": "http://app.test:65616",
    "port-no-number": "http://app.test:http",
    "a-dot-for-any-letter": "http://appxtest",
    "a-dot-at-the-end": "http://app.test.",
    "without-a-scheme": "app.test",
    "scheme-relative": "//app.test",
    "file": "file://app.test",
    "extension": "chrome-extension://app.test",
    "websocket-scheme": "ws://app.test",
    "two-in-one": "http://app.test http://evil.com",
    "two-in-one-by-comma": "http://app.test, http://evil.com",
    "backslash": "http://evil.com\\@app.test",
    "not-ascii": "\xff",
    "own-host-and-not-ascii": "http://app.test\xff",
    "vertical-tab": "http://app.test\x0b",
    "separator": "http://app.test\x1c",
    "next-line": "http://app.test\x85",
    "percent": "http://app%2etest",
    "bracket": "http://[app.test",
}
REFUSED_BY_SERVERS = {
    "uvicorn-websockets": {"vertical-tab", "separator"},
    "uvicorn-wsproto": {"vertical-tab", "separator"},
    "hypercorn": {"vertical-tab"},
    "granian": {"vertical-tab", "separator"},
    "telex": {"vertical-tab", "separator"},
}
"""Headers that a server itself refuses with 400."""


TOLD_DIFFERENTLY = ["another-host", "null", "empty", "blank", "not-ascii", "vertical-tab", "separator", "next-line"]
"""Origins that servers pass on in different ways."""


@pytest.mark.parametrize("row", TOLD_DIFFERENTLY)
async def test_a_foreign_origin_is_refused_on_every_server(site: Site, row: str) -> None:
    await assert_refused(site, row)


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", [row for row in FOREIGN if row not in TOLD_DIFFERENTLY])
async def test_a_foreign_origin_is_refused(site: Site, row: str) -> None:
    await assert_refused(site, row)


async def assert_refused(site: Site, row: str) -> None:
    """Refused, and before anything of the app has run."""
    response = await site.handshake("/origin/own", [("Host", "app.test"), ("Origin", FOREIGN[row])])
    if row in REFUSED_BY_SERVERS[site.kind.name]:
        assert response.status == 400
        assert await site.records() in ([], [("WARNING", "uvicorn.error", "Invalid HTTP request received.")])
    else:
        assert response.status == 403
        assert json.loads(response.body) == {"status_code": 403, "detail": "this origin may not connect"}
    assert await site.notes() == []


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", ["another-host", "null", "own-host-as-prefix"])
async def test_the_check_comes_before_middleware(site: Site, row: str) -> None:
    response = await site.handshake("/origin/own/behind", [("Host", "app.test"), ("Origin", FOREIGN[row])])
    assert response.status == 403
    assert await site.notes() == []


OWN = {
    "same-host": ("app.test", "http://app.test"),
    "same-host-and-port": ("app.test:8000", "http://app.test:8000"),
    "default-port-said": ("app.test", "http://app.test:80"),
    "default-port-said-in-host": ("app.test:80", "http://app.test"),
    "upper-case": ("App.Test", "HTTP://APP.test"),
    "tls-ended-before": ("app.test", "https://app.test"),
    "address": ("127.0.0.1:1234", "http://127.0.0.1:1234"),
    "address-6": ("[::1]:1234", "http://[::1]:1234"),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", OWN)
async def test_the_requests_own_origin_is_accepted(site: Site, row: str) -> None:
    host, origin = OWN[row]
    response = await site.handshake("/origin/own", [("Host", host), ("Origin", origin)])
    assert response.status == 101
    await site.settled()


async def test_a_page_of_the_servers_own_address_is_accepted(site: Site) -> None:
    host = f"{site.running.host}:{site.running.port}"
    async with site.connect("/origin/own/behind", origin=f"http://{host}") as client:
        assert await said(client, "hello") == "hello"
    assert await site.notes() == ["middleware", "guard", "dependency", "handler"]


async def test_a_request_without_an_origin_is_accepted(site: Site) -> None:
    async with site.connect("/origin/own") as client:
        assert await said(client, "hello") == "hello"
    assert await site.notes() == ["guard", "dependency", "handler"]


async def test_two_origins_are_refused(site: Site) -> None:
    host = ("Host", "app.test")
    for second in ("http://app.test", "http://evil.com"):
        response = await site.handshake("/origin/own", [host, ("Origin", "http://app.test"), ("Origin", second)])
        # websockets' own parser in uvicorn answers such a request itself.
        assert response.status == (400 if site.kind.name == "uvicorn-websockets" else 403)
    assert await site.notes() == []


LISTED = {
    "https://good.com": True,
    "HTTPS://Good.Com": True,
    "http://good.com": False,
    "https://good.com:444": False,
    "https://good.com.evil": False,
    "https://good.com@evil.com": False,
    "https://evil.com/https://good.com": False,
    "https://goodxcom": False,
    "https://www.good.com": False,
    "http://plain.test:8080": True,
    "http://plain.test": False,
    "https://a.example.com": True,
    "http://a.b.example.com:9000": True,
    "https://example.com": False,
    "https://exampleXcom": False,
    "https://aexample.com": False,
    "https://a.example.com.evil": False,
    "https://a.exampleXcom": False,
    "http://bare.test": True,
    "https://bare.test:9000": True,
    "https://xbare.test": False,
    "null": False,
    "*": False,
    "https://*.example.com": True,  # no host that exists; it matches as any label does
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("origin", LISTED)
async def test_listed_origins_are_accepted_and_similar_ones_are_not(site: Site, origin: str) -> None:
    response = await site.handshake("/origin/listed", [("Host", "app.test"), ("Origin", origin)])
    assert response.status == (101 if LISTED[origin] else 403)
    await site.settled()


@ON_BOTH_PATHS
async def test_all_origins_may_be_accepted(site: Site) -> None:
    for origin in ("https://evil.com", "null", "\xff"):
        assert (await site.handshake("/origin/any", [("Origin", origin)])).status == 101
    await site.settled()


# what the request says about its host; each with the Origin that it would have to match
FOOLING = {
    "forwarded-host-alone": ([("X-Forwarded-Host", "good.test")], ["Host"]),
    "forwarded-host-beside": ([("Host", "app.test"), ("X-Forwarded-Host", "good.test")], []),
    "forwarded": ([("Host", "app.test"), ("Forwarded", "host=good.test")], []),
    "original-host": ([("Host", "app.test"), ("X-Original-Host", "good.test")], []),
    "path-in-host": ([("Host", "good.test/health?x=")], []),
    "query-in-host": ([("Host", "good.test?")], []),
    "fragment-in-host": ([("Host", "good.test#")], []),
    "user-in-host": ([("Host", "app.test@good.test")], []),
    "second-host": ([("Host", "app.test"), ("Host", "good.test")], []),
    "first-host": ([("Host", "good.test"), ("Host", "app.test")], []),
    "empty-host": ([("Host", "")], []),
    "two-in-one-host": ([("Host", "app.test, good.test")], []),
    "port-no-number": ([("Host", "good.test:x")], []),
    "backslash": ([("Host", "good.test\\")], []),
    "no-host": ([], ["Host"]),
}


@pytest.mark.parametrize("row", FOOLING)
async def test_a_forged_host_is_refused(site: Site, row: str) -> None:
    headers, without = FOOLING[row]
    response = await site.handshake("/origin/own", [*headers, ("Origin", "http://good.test")], without=without)
    assert response.status in {400, 403}, "400 where the server refuses such a Host itself"
    assert await site.notes() == []


@pytest.mark.parametrize("host", ["good.test/health?x=", "good.test#", "a@good.test", "good.test/%2e%2e"])
async def test_the_url_that_a_handler_sees_has_the_paths_own_path(site: Site, host: str) -> None:
    async with site.raw() as client:
        response = await client.handshake("/seen?a=b", [("Host", host)])
        if response.status == 400:
            return
        assert response.status == 101
        seen = json.loads((await client.read_frame()).payload)
    assert (seen["path"], seen["url.path"]) == ("/seen", "/seen")
    await site.settled()
