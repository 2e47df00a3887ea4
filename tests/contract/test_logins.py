"""``authenticate=`` on each server: refused before accept, closed at the expiry, renewed and first sent in frames."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.contract.site import PATIENCE, Site, closing_of

KINDS = ["sync", "async", "raw"]
EXPIRED = (4401, "the token has expired")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def heard(client: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE):
        return json.loads(await client.recv())


async def told(client: ClientConnection, frame: dict[str, object]) -> Any:
    """The answer to a frame."""
    await client.send(json.dumps(frame))
    return await heard(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_without_a_good_token_is_refused(site: Site, kind: str) -> None:
    for headers in ({}, bearer("eve"), bearer("ada/-1")):
        # A server without denial responses answers 403 to any refusal.
        assert (await site.handshake(f"/logins/header/{kind}", headers.items())).status in {401, 403}
    assert await site.notes() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_expiry_closes_in_plain_mode(site: Site, kind: str) -> None:
    async with site.connect(f"/logins/header/{kind}", headers=bearer("ada/0.3")) as client:
        close = await closing_of(client)
    assert (close.code, close.reason) == EXPIRED
    await site.until("ended 4401")
    await site.settled()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_renewed_and_the_expiry_closes_in_frames(site: Site, kind: str) -> None:
    headers = bearer("ada/1000")
    async with site.connect(f"/logins/header/{kind}", headers=headers, subprotocols=["telex.v1"]) as client:
        assert 900 < (await heard(client))["expires_in"] <= 1000
        assert (await told(client, {"type": "call", "id": 1, "data": "hi"}))["data"] == "ada: hi"
        assert (await told(client, {"type": "auth", "id": 2, "token": "eve"}))["error"]["code"] == "not_authorized"
        assert (await told(client, {"type": "auth", "id": 3, "token": "ada/0.3"}))["data"]["expires_in"] <= 0.3
        close = await closing_of(client)
    assert (close.code, close.reason) == EXPIRED
    await site.until("ended 4401")
    await site.settled()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_first_frame_may_be_the_token(site: Site, kind: str) -> None:
    async with site.connect(f"/logins/in-band/{kind}", subprotocols=["telex.v1"]) as client:
        assert (await heard(client))["auth"] == "required"
        refused = await told(client, {"type": "call", "id": 1, "data": "hi"})
        assert refused["error"]["code"] == "not_authorized"
        assert (await told(client, {"type": "auth", "id": 2, "token": "ada"}))["data"] == {"expires_in": None}
        assert (await told(client, {"type": "call", "id": 3, "data": "hi"}))["data"] == "ada: hi"
    async with site.connect(f"/logins/in-band/{kind}", subprotocols=["telex.v1"]) as client:
        await heard(client)
        assert (await told(client, {"type": "auth", "id": 1, "token": "eve"}))["error"]["code"] == "not_authorized"
        assert (await closing_of(client)).code == 4401
    await site.settled()
