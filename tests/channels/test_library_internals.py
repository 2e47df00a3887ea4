"""What we use of client libraries that is private: a release that changes it fails here, and says what has changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import nats
import redis.asyncio
from nats.aio.client import Client

from tests.channels.brokers import Broker


async def test_a_connection_of_redis_has_its_stream_writer(running_broker: Callable[[str], Broker]) -> None:
    connection = redis.asyncio.Connection(port=running_broker("valkey").port)
    await connection.connect()  # type: ignore[no-untyped-call]
    try:
        writer = connection._writer
        assert isinstance(writer, asyncio.StreamWriter)
        assert writer.transport.get_write_buffer_size() == 0
    finally:
        await connection.disconnect()


async def test_a_client_of_nats_has_its_subscriptions_and_its_stream_writer(
    running_broker: Callable[[str], Broker],
) -> None:
    client = await nats.connect(running_broker("nats").url)
    try:
        subscription = await client.subscribe("a", cb=_ignore)
        assert list(client._subs.values()) == [subscription]
        assert callable(subscription._stop_processing)
        assert isinstance(client._transport._io_writer, asyncio.StreamWriter)  # type: ignore[union-attr]
    finally:
        await client.close()


async def test_a_client_of_nats_asks_its_own_method_for_what_tells_the_password(
    running_broker: Callable[[str], Broker],
) -> None:
    sent: list[bytes] = []

    class Watched(Client):
        def _connect_command(self) -> bytes:
            assert isinstance(self._server_info.get("tls_required", False), bool)
            sent.append(super()._connect_command())
            return sent[-1]

    client = Watched()
    await client.connect(running_broker("nats").url, user="ann", password="secret")
    await client.close()
    assert json.loads(sent[0].removeprefix(b"CONNECT "))["pass"] == "secret"


async def _ignore(_: object) -> None:
    """Takes a message."""
