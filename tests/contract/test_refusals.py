"""Refused handshakes: by HTTP for programs, in the socket for browsers that offer telex.v1."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.contract.site import PATIENCE, Site
from tests.support.raw import TEXT, Close


@dataclass(frozen=True)
class Told:
    """What is told: the status, the code of the error, its message, and what differs from the usual close."""

    status: int
    code: str
    message: str
    close: Close | None = None
    more: dict[str, Any] | None = None
    body: dict[str, Any] | None = None
    """The data of the error, where it is not Telex's own body."""
    is_text: bool = False
    by_http: int | None = None
    """The status of the response where it is another: a close before accept is 403."""

    @property
    def closed(self) -> Close:
        return self.close or Close(4000 + self.status, self.message)

    @property
    def frame(self) -> dict[str, Any]:
        error = {"code": self.code, "message": self.message, **(self.more or {})}
        if not self.is_text:
            error["data"] = self.body or {"status_code": self.status, "detail": self.message}
        return {"type": "error", "about": "connection", "error": error}


OWN_CODE = {"status_code": 403, "detail": "mine", "code": 4242}
MEMBERS_ONLY = {"status_code": 403, "detail": "members only", "extra": {"room": 7}}
CASES = {
    "/refusals/false": Told(403, "permission_denied", "Forbidden"),
    "/refusals/guard": Told(403, "permission_denied", "members only", body=MEMBERS_ONLY),
    "/refusals/guard-behind": Told(403, "permission_denied", "members only", body=MEMBERS_ONLY),
    "/refusals/later": Told(
        429, "rate_limited", "slow down", Close(4429, "retry-after=3.00"), more={"retry_after": 3.0}
    ),
    "/refusals/teapot": Told(418, "invalid_message", "short and stout"),
    "/refusals/code": Told(403, "permission_denied", "mine", Close(4242, "mine"), body=OWN_CODE),
    "/refusals/text": Told(403, "permission_denied", "not you", is_text=True),
    "/refusals/long": Told(403, "permission_denied", "x" * 4096, Close(4403, "x" * 123), is_text=True),
    "/refusals/html": Told(401, "not_authorized", "Unauthorized", is_text=True),
    "/refusals/close": Told(401, "not_authorized", "log in", is_text=True, by_http=403),
    "/refusals/plain-close": Told(403, "permission_denied", "Forbidden", is_text=True),
    "/refusals/failing": Told(503, "unavailable", "later", Close(4503, "retry-after=1.50"), more={"retry_after": 1.5}),
    "/refusals/own-body": Told(409, "conflict", "taken", body={"detail": "taken"}),
    "/refusals/closed": Told(403, "permission_denied", "mine", Close(4321, "mine"), is_text=True),
    "/refusals/closed-with-status": Told(410, "invalid_message", "gone", is_text=True, by_http=403),
    "/refusals/returned": Told(403, "permission_denied", "the handler did not accept the connection"),
    "/refusals/raised": Told(500, "internal", "handled", body={"detail": "handled"}),
    "/refusals/dependency": Told(404, "not_found", "no such room"),
    "/refusals/broken": Told(500, "internal", "Internal Server Error"),
    "/refusals/no-such-path": Told(404, "not_found", "Not Found"),
}
LOGGED = {"/refusals/failing", "/refusals/broken", "/refusals/raised"}
"""Refusals that are errors of the server, too."""


def browser(site: Site, path: str, **options: Any) -> Any:
    """A client as a page of the server's own host."""
    origin = f"http://127.0.0.1:{site.running.port}"
    return site.connect(path, **{"origin": origin, "subprotocols": ["telex.v1"], **options})


async def refusal_of(client: ClientConnection) -> tuple[Any, Close]:
    """The one frame of a refused client, and its close."""
    async with asyncio.timeout(PATIENCE):
        frame = json.loads(await client.recv())
        await client.wait_closed()
    assert client.protocol.close_rcvd is not None
    return frame, Close(client.protocol.close_rcvd.code, client.protocol.close_rcvd.reason)


@pytest.mark.parametrize("path", CASES)
async def test_a_browser_reads_why_it_was_refused(site: Site, path: str) -> None:
    told = CASES[path]
    async with browser(site, path) as client:
        assert client.subprotocol == "telex.v1"
        assert await refusal_of(client) == (told.frame, told.closed)
    assert await site.notes() == []
    await site.settled()
    assert {level for level, _, _ in await site.records()} == ({"ERROR"} if path in LOGGED else set())


@pytest.mark.parametrize("path", CASES)
async def test_a_program_gets_http(site: Site, path: str) -> None:
    told = CASES[path]
    response = await site.handshake(path, [("Sec-WebSocket-Protocol", "telex.v1")])
    assert response.status == (told.by_http or told.status)
    assert await site.notes() == []
    await site.settled()
    await site.records()


async def test_a_parameter_that_is_missing_is_told(site: Site) -> None:
    async with browser(site, "/refusals/parameter") as client:
        frame, close = await refusal_of(client)
    assert frame["error"]["code"] == "invalid_message"
    assert "since" in frame["error"]["message"]
    assert close.code == 4400


@pytest.mark.parametrize("path", ["/refusals/guard", "/refusals/no-such-path", "/refusals/socket"])
async def test_a_foreign_origin_gets_http(site: Site, path: str) -> None:
    response = await site.handshake(path, [("Sec-WebSocket-Protocol", "telex.v1"), ("Origin", "https://evil.com")])
    assert response.status in ({403, 404} if path == "/refusals/no-such-path" else {403})


async def test_a_browser_in_plain_mode_gets_http(site: Site) -> None:
    own = ("Origin", f"http://127.0.0.1:{site.running.port}")
    assert (await site.handshake("/refusals/guard", [own])).status == 403
    other = ("Sec-WebSocket-Protocol", "telex.v2, chat")
    assert (await site.handshake("/refusals/guard", [own, other])).status == 403


async def test_the_option_decides(site: Site) -> None:
    headers = [("Sec-WebSocket-Protocol", "telex.v1")]
    own = ("Origin", f"http://127.0.0.1:{site.running.port}")
    assert (await site.handshake("/refusals/http", [*headers, own])).status == 403
    async with browser(site, "/refusals/socket", origin=None) as client:
        assert (await refusal_of(client))[1] == Close(4403, "Forbidden")
    # A client that does not offer telex.v1 cannot read a frame of it.
    assert (await site.handshake("/refusals/socket")).status == 403


@pytest.mark.long
async def test_a_client_that_does_not_answer_is_closed(site: Site) -> None:
    own = ("Origin", f"http://127.0.0.1:{site.running.port}")
    async with site.raw() as client:
        response = await client.handshake("/refusals/guard", [("Sec-WebSocket-Protocol", "telex.v1"), own])
        assert response.status == 101
        frame = await client.read_frame()
        assert frame.opcode == TEXT
        assert (await client.read_close()).code == 4403
        if site.kind.name == "telex":
            # The server waits a second for the client's close frame; for others it waits ten.
            client.timeout = 5
            assert await client.read_to_end() == b""
