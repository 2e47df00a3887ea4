"""Opening handshakes that ask for what is not there, or for more than they may."""

from __future__ import annotations

import json

import pytest
from websockets.exceptions import InvalidStatus

from tests.contract.site import ON_BOTH_PATHS, Site, said
from tests.contract.subjects.handshakes import INJECTIONS, guarded, guarded_below

ONLY_FOR_AN_ACCEPT = {
    "accept-key",
    "extensions",
    "protocol-as-header",
    "connection",
    "upgrade",
    "subprotocol-not-offered",
    "subprotocol-with-crlf",
}
AUTHORIZED = [("Authorization", "Bearer token")]


# -- what an app says in its accept


@ON_BOTH_PATHS
@pytest.mark.parametrize("how", ["accept", "accept-event"])
@pytest.mark.parametrize("case", INJECTIONS)
async def test_nothing_is_injected_into_the_accept(site: Site, case: str, how: str) -> None:
    response = await site.handshake(f"/{how}/{case}", [("Sec-WebSocket-Protocol", "chat")])
    assert response.status == 500
    assert json.loads(response.body) == {"status_code": 500, "detail": "Internal Server Error"}
    assert response.header("set-cookie") is None
    ((level, logger, text),) = await site.records()
    assert (level, logger) == ("ERROR", "telex")
    assert "ValueError: " in text


@ON_BOTH_PATHS
@pytest.mark.parametrize("case", [case for case in INJECTIONS if case not in ONLY_FOR_AN_ACCEPT])
async def test_nothing_is_injected_into_a_denial(site: Site, case: str) -> None:
    response = await site.handshake(f"/deny-with/{case}")
    assert response.status == 500
    assert response.header("set-cookie") is None
    assert len(await site.records()) == 1


async def test_the_first_subprotocol_that_was_offered_is_taken(site: Site) -> None:
    response = await site.handshake("/accept-well", [("Sec-WebSocket-Protocol", "v0, v1, v2")])
    assert response.status == 101
    assert response.header("sec-websocket-protocol") == "v2"
    # granian sends no headers of the app's with its 101.
    assert response.header("set-cookie") == (None if site.kind.name == "granian" else "a=1")
    await site.settled()


@pytest.mark.parametrize("offered", [None, "v9", "v", "v11"])
async def test_of_unknown_subprotocols_none_is_taken(site: Site, offered: str | None) -> None:
    headers = [("Sec-WebSocket-Protocol", offered)] if offered else []
    response = await site.handshake("/accept-well", headers)
    assert response.status == 101
    assert response.header("sec-websocket-protocol") is None
    await site.settled()


# -- credentials


@pytest.mark.parametrize("path", [plan.path for plan in guarded.plans])
async def test_no_handler_of_any_kind_is_entered_without_credentials(site: Site, path: str) -> None:
    response = await site.handshake("/guarded" + path.replace("{name:str}", "any"))
    assert response.status == 401
    assert json.loads(response.body) == {"status_code": 401, "detail": "who are you?"}
    assert response.header("www-authenticate") == "Bearer"
    assert await site.notes() == []


@ON_BOTH_PATHS
@pytest.mark.parametrize("path", [plan.path for plan in guarded_below.plans])
async def test_a_guard_of_a_router_or_handler_guards_as_well(site: Site, path: str) -> None:
    path = "/guarded-below" + path.replace("{name:str}", "any")
    assert (await site.handshake(path)).status == 401
    assert await site.notes() == []
    assert (await site.handshake(path, AUTHORIZED)).status == 101
    await site.settled()


WAYS_ROUND = [
    "/guarded/listener/",
    "/guarded//listener",
    "/guarded/./listener",
    "/guarded/nothing/../listener",
    "/nothing/../guarded/listener",
    "/guarded/listener;a=b",
    "/guarded/listener%00",
    "/guarded/%6cistener",
    "/guarded/%2e/listener",
    "/guarded/controller%2fany",
    "/guarded/controller/..",
    "/guarded/LISTENER",
    "/GUARDED/listener",
    "/guarded/listener?authorization=Bearer+token",
    "/guarded/listener#",
    "/%67uarded/listener",
    "/guarded",
    "/guarded/",
    "/guardedlistener",
    "/guarded\\listener",
    "//guarded/listener",
]


@pytest.mark.parametrize("path", WAYS_ROUND)
async def test_there_is_no_way_round_a_guard(site: Site, path: str) -> None:
    response = await site.handshake(path)
    assert response.status in {400, 401, 404}
    assert await site.notes() == []
    await site.records()  # of servers that refuse such a path themselves


# -- paths


# the path, and what the handler gets, if one is there at all
PATHS = {
    "/files/a%20b": ["files", "a b"],
    "/files/%C3%BC": ["files", "ü"],
    "/files/%252e%252e": ["files", "%2e%2e"],
    "/files/a%252fb": ["files", "a%2fb"],
    "/files/...": ["files", "..."],
    "/files/.hidden": ["files", ".hidden"],
    "/files/a%2fb": None,
    "/files/a%00b": None,
    "/files/a%0d%0ab": None,
    "/files/a%7fb": None,
    "/files/..": None,
    "/files/.": None,
    "/files/%2e%2e": None,
    "/files/%2E": None,
    "/files/": None,
    "/files/../seen": None,
    "/files/%2e%2e/seen": None,
    "/tree/a/b": ["tree", "/a/b"],
    "/tree/a/..b/c..": ["tree", "/a/..b/c.."],
    "/tree/../../etc/passwd": None,
    "/tree/a/../b": None,
    "/tree/a/..": None,
    "/tree/./a": None,
    "/tree/a%2f..%2fb": None,
    "/tree/%2e%2e/b": None,
    "/tree/a%00": None,
    "/../../etc/passwd": None,
    "/seen;x": None,
    "//seen": None,
    "/seen//": None,
    "/SEEN": None,
    "/nothing": None,
}


@pytest.mark.parametrize("path", PATHS)
async def test_paths_are_matched_exactly_and_decoded_once(site: Site, path: str) -> None:
    async with site.raw() as client:
        response = await client.handshake(path)
        if PATHS[path] is None:
            assert response.status == 404
            assert json.loads(response.body) == {"status_code": 404, "detail": "Not Found"}
        else:
            assert response.status == 101
            assert json.loads((await client.read_frame()).payload) == PATHS[path]
    await site.settled()


async def test_a_path_that_is_no_utf_8_does_no_harm(site: Site) -> None:
    for path in ("/files/%ff", "/files/\xff", "/files/%ed%a0%80"):
        async with site.raw() as client:
            response = await client.handshake(path)
            assert response.status in {101, 400, 404}
            if response.status == 101:
                (kind, name) = json.loads((await client.read_frame()).payload)
                assert kind == "files"
                assert "/" not in name
    await site.settled()
    await site.records()  # of servers that refuse such a path themselves


# -- parameters


async def test_parameters_arrive_as_their_types(site: Site) -> None:
    headers = {"x-token": "9", "cookie": "session_id=4"}
    async with site.connect("/typed/5/2026-11-23?limit=3", headers=headers) as client:
        assert json.loads(await client.recv()) == [5, "2026-11-23", 3, 9, 4, 1]


PATHS_THAT_DO_NOT_FIT = [
    "/typed/five/2026-11-23",
    "/typed/5.0/2026-11-23",
    "/typed/5/2026-13-23",
    "/typed/5/tomorrow",
    "/typed/%D9%A5/2026-11-23",
    "/typed/1e3/2026-11-23",
    f"/typed/{'9' * 401}/2026-11-23",
    f"/typed/{'9' * 5000}/2026-11-23",
    "/typed/5",
    "/typed/5/2026-11-23/more",
]


@ON_BOTH_PATHS
@pytest.mark.parametrize("path", PATHS_THAT_DO_NOT_FIT, ids=lambda path: path[:30])
async def test_a_path_parameter_of_the_wrong_type_is_no_path(site: Site, path: str) -> None:
    response = await site.handshake(f"{path}?limit=3")
    assert response.status == 404
    assert await site.notes() == []


# what is wrong, and the error
WRONG_PARAMETERS: dict[str, tuple[str, dict[str, str], dict[str, str | None]]] = {
    "limit-missing": ("", {}, {"query:limit": "is missing"}),
    "limit-empty": ("?limit=", {}, {"query:limit": "Expected `int`, got `str`"}),
    "limit-text": ("?limit=many", {}, {"query:limit": "Expected `int`, got `str`"}),
    "limit-fraction": ("?limit=1.5", {}, {"query:limit": "Expected `int`, got `str`"}),
    "limit-huge": (f"?limit={'9' * 5000}", {}, {"query:limit": "Integer value out of range"}),
    "limit-and-page": ("?limit=x&page=y", {}, {"query:limit": None, "query:page": None}),
    "header-text": ("?limit=1", {"X-Token": "x"}, {"header:x-token": None}),
    "header-not-ascii": ("?limit=1", {"X-Token": "\xff"}, {"header:x-token": None}),
    "cookie-text": ("?limit=1", {"Cookie": "session_id=x"}, {"cookie:session_id": None}),
    "cookie-broken": ("?limit=1", {"Cookie": "session_id"}, {"cookie:session_id": "is missing"}),
}


@ON_BOTH_PATHS
@pytest.mark.parametrize("row", WRONG_PARAMETERS)
async def test_wrong_parameters_are_all_named(site: Site, row: str) -> None:
    query, headers, complaints = WRONG_PARAMETERS[row]
    given = {"X-Token": "1", "Cookie": "session_id=1", **headers}
    response = await site.handshake(f"/typed/5/2026-11-23{query}", given.items())
    assert response.status == 400
    body = json.loads(response.body)
    found = {f"{each['source']}:{each['key']}": each["message"] for each in body["extra"]}
    assert found.keys() == complaints.keys()
    assert all(message in {None, found[key]} for key, message in complaints.items())
    assert all(each["key"] in body["detail"] for each in body["extra"])
    assert await site.notes() == []


# -- a handler that does not accept


async def test_a_handler_that_never_accepts_refuses(site: Site) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await site.connect("/never-accepts")
    assert refused.value.response.status_code == 403
    assert await site.notes() == ["handler"]


async def test_a_client_that_gives_up_before_the_answer_leaves_nothing(site: Site) -> None:
    for _ in range(20):
        async with site.raw() as client:
            await client.send(b"GET /seen HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
            client.reset()
    await site.settled()


@ON_BOTH_PATHS
async def test_an_http_request_to_a_websocket_path_is_a_426(site: Site) -> None:
    async with site.raw() as client:
        response = await client.handshake("/seen", without=["Upgrade", "Connection", "Sec-WebSocket-Key"])
    assert response.status == 426
    assert (await site.handshake("/seen")).status == 101
    async with site.connect("/control") as other:
        assert await said(other, "hello") == "hello"
