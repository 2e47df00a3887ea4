import asyncio

import pytest

from examples.docs.clock import app as ticking
from examples.docs.limit_clients import app as limited
from telex import websocket_listener
from telex.exceptions import CallError
from telex.testing import AsyncTestClient, TestClient, TestClock, create_async_test_client


async def test_a_limit() -> None:
    client = AsyncTestClient(limited, clock=TestClock())
    async with client, client.websocket_connect("/chat") as session:
        for number in range(11):  # 10 at once, then 5 a second
            await session.send(str(number))
        for number in range(10):
            await session.expect(str(number))
        await client.advance(0.19)
        await session.refute(timeout=0)
        await client.advance(0.01)
        await session.expect("10")


async def test_a_time_out() -> None:
    @websocket_listener("/", call_timeout=30)
    async def forget(data: str) -> str:
        return await asyncio.Future()

    client = create_async_test_client(forget, clock=TestClock())
    async with client, client.websocket_connect("/", ["telex.v1"]) as session:
        pending = await session.begin("x")
        await client.advance(30)
        with pytest.raises(CallError, match="took too long"):
            await pending.result()


def test_one_a_second() -> None:
    client = TestClient(ticking, clock=TestClock())
    with client, client.websocket_connect("/clock") as session:
        session.expect(str)
        session.refute(timeout=0)
        client.advance(3)
        for _ in range(3):
            session.expect(str)
        session.refute(timeout=0)
