"""A PostgreSQL that accepts no writes: a standby, a failover, and statements that became read-only."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from typing import Final

import psycopg
import pytest

from telex.channels import Channels, Event
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Postgres
from tests.channels.conftest import KEEP, WAIT, take, take_data, until, within
from tests.support.proxy import TcpProxy

pytestmark = pytest.mark.broker

OPTIONS: Final = {"arbitrary_channels_allowed": True, "history": {"kept:*": KEEP}}
PROMPT: Final = 20.0
"""Seconds: as long as a test can wait for a refusal. One that came by a time-out would have another text."""

READ_ONLY: Final = """
CREATE FUNCTION read_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE read_only_sql_transaction USING MESSAGE = 'cannot execute INSERT in a read-only transaction';
END $$;
CREATE TRIGGER read_only BEFORE INSERT ON telex_events EXECUTE FUNCTION read_only();
"""


class Standby(Postgres):
    """Follows a primary until it is promoted."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        shutil.rmtree(self.home / "data")
        where = f"-h 127.0.0.1 -p {primary.port} -U telex -D {self.home / 'data'}".split()
        self._run("pg_basebackup", *where, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")

    def promote(self) -> None:
        """Become a primary."""
        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")


@pytest.fixture
async def primary() -> AsyncIterator[Postgres]:
    server = Postgres()
    try:
        await server.restart()
        yield server
    finally:
        server.remove()


@pytest.fixture
async def standby(primary: Postgres) -> AsyncIterator[Standby]:
    server = await asyncio.to_thread(Standby, primary)
    try:
        await server.restart()
        yield server
    finally:
        server.remove()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("telex.channels.recovery.reader.HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr("telex.channels.backends.base.PROBE_SECONDS", 0.2)


async def test_a_standby_is_refused_at_the_start(standby: Standby) -> None:
    with pytest.raises(BackendUnavailable, match="is a standby: connect to the primary"):
        await within(Channels(standby.url, channels=["a"]).__aenter__(), PROMPT)


async def test_a_failover_is_followed_when_the_standby_is_promoted(primary: Postgres, standby: Standby) -> None:
    """The same address leads to the standby, which is not promoted yet: publishers get the reason."""
    async with (
        TcpProxy(primary.port) as proxy,
        Channels(proxy.url(primary.url), **OPTIONS) as hub,  # type: ignore[arg-type]
        hub.subscribe(["kept:a", "live"]) as events,
    ):
        await hub.publish(["kept:a", "live"], "before")
        await take_data(events, 2)
        proxy.target = standby.port
        proxy.cut()
        await until(lambda: not hub.is_ready)
        with pytest.raises(BackendUnavailable, match="is a standby: connect to the primary"):
            await within(hub.publish("live", "refused"), PROMPT)
        await asyncio.to_thread(standby.promote)
        await until(lambda: hub.is_ready)
        await hub.publish(["kept:a", "live"], "after")
        texts: dict[str, list[str]] = {"kept:a": [], "live": []}
        while any(heard[-1:] != ["after"] for heard in texts.values()):
            [item] = await take(events, 1)
            texts[item.channel].append(item.text if isinstance(item, Event) else "gap")
        # Events without history may have been published meanwhile.
        assert texts["live"] == ["gap", "after"]
        assert texts["kept:a"] in (["after"], ["gap", "after"])


async def test_a_database_that_became_read_only_says_so_and_is_connected_again(primary: Postgres) -> None:
    """As behind a pooler that keeps the connection: only the statements are refused, here by a trigger."""
    async with (
        Channels(primary.url, **OPTIONS) as hub,  # type: ignore[arg-type]
        hub.subscribe(["kept:a", "live"]) as events,
    ):
        async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as admin:
            await admin.execute(READ_ONLY)
            for _ in range(2):
                with pytest.raises(BackendUnavailable, match=r"takes no writes: cannot execute \w+ in a read-only"):
                    await within(hub.publish("kept:a", "refused"), PROMPT)
            pids = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%telex_send%' AND pid <> pg_backend_pid()"
            async with asyncio.timeout(WAIT):
                # The server ends a process shortly after its connection was closed.
                while await (await admin.execute(pids)).fetchall():  # noqa: ASYNC110 - no event tells it
                    await asyncio.sleep(0.01)
            await admin.execute("DROP TRIGGER read_only ON telex_events")
        await hub.publish(["kept:a", "live"], "after")
        assert await take_data(events, 2) == ["after", "after"]
        assert (hub.statistics().reconnects, hub.statistics().gaps) == (0, 0)
