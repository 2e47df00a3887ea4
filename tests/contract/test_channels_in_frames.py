"""A channel listener in telex.v1, on every server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.channels.framed import following
from tests.contract.servers import ServerKind
from tests.protocol.conftest import Caller

ROOM = "/rooms/lobby"


async def frames_of(caller: Caller, *kinds: str) -> dict[str, Any]:
    """The next frames, by type, until each of these has come."""
    found: dict[str, Any] = {}
    while not found.keys() >= set(kinds):
        frame = await caller.receive()
        found[frame["type"]] = frame
    return found


@pytest.mark.program
async def test_a_channel_speaks_frames(server: ServerKind) -> None:
    ada, bo = ({"headers": {"cookie": f"user={name}"}} for name in ("ada", "bo"))
    async with server.process("examples.docs.channels_rooms:app") as running:
        async with following(running, ROOM, **ada) as (caller, begin), following(running, ROOM, **bo) as (other, _):
            call_id = await caller.begin({"text": "hello"})
            found = await frames_of(caller, "event", "reply")
            position = found["event"]["position"]
            assert found["reply"] == {"type": "reply", "id": call_id, "data": {"position": position}}
            assert (await frames_of(other, "event"))["event"] == found["event"]
            await caller.begin({"type": "history"})
            page = (await frames_of(caller, "reply"))["reply"]["data"]
            assert page == {"events": [{"data": {"text": "hello"}, "position": position}], "more": False}
        async with following(running, f"{ROOM}?since={begin['position']}", **ada) as (caller, again):
            assert again["recovered"] is True
            assert (await frames_of(caller, "event"))["event"] == found["event"]
