"""``app.users`` over processes, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.channels.brokers import Broker
from tests.channels.conftest import within
from tests.contract.servers import KINDS
from tests.support.live import asked_json, connected, ending, heard_json

TELEX = next(kind for kind in KINDS if kind.name == "telex")


async def until_answered(client: ClientConnection, answer: int, *command: Any) -> None:
    """Ask until the answer comes: processes learn of each other by themselves."""
    while await asked_json(client, list(command)) != answer:  # noqa: ASYNC110 - no event of another process
        await asyncio.sleep(0.01)


async def test_processes_share_their_users_and_miss_one_that_is_killed(
    running_broker: Callable[[str], Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELS_URL", running_broker("valkey").url)
    async with AsyncExitStack() as stack:
        open_ = stack.enter_async_context
        here, there = [await open_(TELEX.process("tests.users.app:app")) for _ in range(2)]
        desk = await open_(connected(here, "/people/desk"))
        near = await open_(connected(here, "/people/idle?user=ada"))
        far = await open_(connected(there, "/people/idle?user=ada"))
        await within(until_answered(desk, 2, "count", "ada"))
        await asked_json(desk, ["notify", "ada", {"n": 1}])
        assert await heard_json(near) == await heard_json(far) == {"n": 1}

        assert there.pid is not None
        os.kill(there.pid, signal.SIGKILL)
        await within(far.wait_closed())
        await within(until_answered(desk, 1, "count", "ada"))
        back = await open_(connected(here, "/people/idle?user=ada"))
        await within(until_answered(desk, 2, "count", "ada"))
        await asked_json(desk, ["close", "ada", 4403, "revoked"])
        for client in (near, back):
            assert await ending(client) == (4403, "revoked")
