"""What is PostgreSQL's own: transactions that stay open, locked rows, history as rows, roles and prefixes."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import ExitStack, asynccontextmanager

import psycopg
import pytest
from psycopg import AsyncConnection

from telex.channels import Channels, Event, Gap, Keep, Position
from telex.channels.backends import postgres
from telex.channels.backends.base import BrokerRefusal, Listener, Sink
from telex.channels.backends.postgres import PostgresBackend
from telex.channels.backends.postgres import backend as module
from telex.channels.names import TopicName
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException
from tests.channels.brokers import Broker
from tests.channels.conftest import KEEP, WAIT, take, take_data, until, within

LARGE = "x" * 20_000


@pytest.fixture
def url(running_broker: Callable[[str], Broker]) -> str:
    return running_broker("postgres").url


@asynccontextmanager
async def hub_on(backend: PostgresBackend | str, keep: Keep | None = KEEP) -> AsyncIterator[Channels]:
    async with Channels(backend, arbitrary_channels_allowed=True, history=keep and {"kept:*": keep}) as hub:
        yield hub


@pytest.fixture
async def hub(url: str) -> AsyncIterator[Channels]:
    async with hub_on(url) as hub:
        yield hub


@pytest.fixture
async def user(url: str) -> AsyncIterator[AsyncConnection]:
    """A connection of the user's, whose transactions end when it says so."""
    async with await AsyncConnection.connect(url) as connection:
        yield connection
        await connection.rollback()


@pytest.fixture
async def admin(url: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


async def value(connection: AsyncConnection, query: str, *parameters: object) -> object:
    """The one value that ``query`` gives."""
    row = await (await connection.execute(query.encode(), parameters)).fetchone()
    assert row is not None
    return row[0]


async def until_true(connection: AsyncConnection, query: str, *parameters: object) -> None:
    """Come back when the database says yes: it tells by no event."""
    async with asyncio.timeout(WAIT):
        while not await value(connection, query, *parameters):
            pass


WAITING = "SELECT count(*) = %s FROM pg_locks WHERE NOT granted"

GATE = """
CREATE OR REPLACE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(4711);
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER gate BEFORE INSERT ON telex_events FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
SELECT pg_advisory_lock(4711)
"""


@asynccontextmanager
async def gate(admin: AsyncConnection) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """In the body publishes to channels with history stand still in their middle, until what it gives is called."""
    await admin.execute(GATE)
    try:
        yield lambda: admin.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await admin.execute("SELECT pg_advisory_unlock_all()")
        await admin.execute("DROP FUNCTION wait_at_gate CASCADE")


# -- the reader


class Recorder:
    """A sink that fails at some events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.loss: asyncio.Future[BackendUnavailable] = asyncio.get_running_loop().create_future()

    def deliver(self, event: Event, pattern: str | None = None) -> None:
        if event.data == b"poison":
            raise RuntimeError("a writer failed")
        self.events.append(event)

    def keep_for(self, channel: str, /) -> Keep | None:
        return None

    def lost(self, error: BackendUnavailable) -> None:
        self.loss.set_result(error)

    def dropped(self, topics: Collection[TopicName]) -> None:
        raise AssertionError

    def refused(self, topic: TopicName, error: BrokerRefusal) -> None:
        raise AssertionError


async def test_a_reader_that_fails_says_that_it_is_lost(url: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    backend, sink = PostgresBackend(url), Recorder()
    await backend.open()
    async with backend.listen(sink) as listener:
        await listener.subscribe([TopicName(name)])
        await backend.publish([(name, None)], b"poison")
        error = await within(sink.loss)
    assert "a writer failed" in error.detail
    assert "a writer failed" in caplog.text
    await backend.close()


class Poisoned(PostgresBackend):
    """Its sink fails once."""

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        deliver = sink.deliver

        def fail_once(event: Event, pattern: str | None = None) -> None:
            if event.data == b"poison":
                raise RuntimeError("a writer failed")
            deliver(event, pattern)

        async with super().listen(sink) as listener:
            sink.deliver = fail_once  # type: ignore[method-assign]
            yield listener


async def test_a_reader_that_failed_is_replaced(url: str, name: str) -> None:
    async with hub_on(Poisoned(url)) as hub, hub.subscribe([name, f"kept:{name}"]) as events:
        await hub.publish(name, "poison")
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish([name, f"kept:{name}"], "after")
        gap, *rest = await take(events, 3)
        assert isinstance(gap, Gap)
        assert gap.channel == name
        assert [item.data for item in rest if isinstance(item, Event)] == [b"after", b"after"]


@pytest.mark.parametrize("garbage", ["", "hello", ":", "::", "e:1: %", "e:x:1 eA==", ":1: x"])
async def test_what_others_notify_by_hand_hurts_nobody(
    hub: Channels, admin: AsyncConnection, name: str, garbage: str
) -> None:
    async with hub.subscribe(name) as events:
        heard = await value(admin, "SELECT 'telex_' || left(encode(sha256(%s), 'hex'), 40)", name.encode())
        await admin.execute("SELECT pg_notify(%s, %s)", (heard, garbage))
        await hub.publish(name, "ours")
        assert await take_data(events, 1) == ["ours"]
        assert hub.statistics().gaps == 0


# -- transactions


async def test_an_open_transaction_holds_up_nobody(hub: Channels, user: AsyncConnection, name: str) -> None:
    same, other = f"kept:{name}", f"kept:{name}:other"
    async with hub.subscribe([same, name, other]) as events:
        await hub.publish(same, "before")
        await hub.publish([same, name], LARGE, transaction=user)
        await within(hub.publish([same, name, other], "meanwhile"), 2)
        stands = await within(hub.position(same), 2)
        await within(hub.put_subscriber_history(events, same), 2)
        assert sorted(await take_data(events, 6)) == ["before", "before", *["meanwhile"] * 4]
        await user.commit()
        late = await take(events, 2)
        assert {(item.channel, item.text) for item in late if isinstance(item, Event)} == {(same, LARGE), (name, LARGE)}
        assert {item.previous for item in late if isinstance(item, Event)} == {None, stands.offset}
        assert hub.statistics().reconnects == hub.statistics().gaps == 0


async def test_a_channel_that_an_open_transaction_begins_has_a_position(
    hub: Channels, user: AsyncConnection, name: str
) -> None:
    begun, unrelated = f"kept:{name}", f"kept:{name}:unrelated"
    await hub.publish(begun, "1", transaction=user)
    await user.execute("SET CONSTRAINTS ALL IMMEDIATE")  # its row is there now, and locked
    before = await within(hub.position(begun), 2)
    async with hub.subscribe(begun) as events, hub.subscribe(unrelated):
        assert events.positions[begun].epoch == before.epoch
        await user.commit()
        await hub.publish(begun, "2")
        first, second = await take(events, 2)
        assert isinstance(first, Event)
        assert isinstance(second, Event)
        assert first.position is not None
        assert (first.text, first.position.epoch, first.previous) == ("1", before.epoch, 0)
        assert before.offset < first.position.offset == second.previous
    async with hub.subscribe(begun, since=before) as events:
        assert events.recovered is True
        assert await take_data(events, 2) == ["1", "2"]
    assert hub.statistics().reconnects == hub.statistics().gaps == 0


async def test_an_app_starts_while_a_transaction_holds_what_is_to_be_swept(
    hub: Channels, url: str, user: AsyncConnection, name: str
) -> None:
    await hub.publish(f"kept:{name}", "x")
    await user.execute("UPDATE telex_channels SET expires = '2000-01-01' WHERE channel = %s", (f"kept:{name}",))
    await user.commit()
    await hub.publish([f"kept:{name}", name], LARGE, transaction=user)
    await user.execute("SET CONSTRAINTS ALL IMMEDIATE")
    async with asyncio.timeout(WAIT), hub_on(PostgresBackend(url, timeout=50)) as another:
        assert another.is_ready


async def test_what_is_rolled_back_to_a_savepoint_never_leaves(hub: Channels, user: AsyncConnection, name: str) -> None:
    kept = f"kept:{name}"

    async def undo() -> None:
        async with user.transaction():
            await hub.publish(kept, "undone", transaction=user)
            raise psycopg.Rollback

    async with hub.subscribe(kept) as events:
        async with user.transaction():
            await undo()
            await hub.publish(kept, "1", transaction=user)
            await undo()
            async with user.transaction():
                await hub.publish(kept, "2", transaction=user)
        await hub.publish(kept, "end")
        assert await take_data(events, 3) == ["1", "2", "end"]


async def test_transactions_that_publish_in_different_orders_both_commit(
    hub: Channels, user: AsyncConnection, admin: AsyncConnection, url: str, name: str
) -> None:
    names = [f"kept:{name}:Z", f"kept:{name}:a"]
    async with (
        await AsyncConnection.connect(url) as another,
        await AsyncConnection.connect(url, autocommit=True) as observer,
        hub.subscribe(names) as events,
        asyncio.timeout(WAIT),
    ):
        for connection, order in ((user, names), (another, names[::-1])):
            await hub.publish(order[0], "x", transaction=connection)
        for connection, order in ((user, names), (another, names[::-1])):
            await hub.publish(order[1], "x", transaction=connection)
        async with gate(admin) as open_gate:
            commits = []
            for count, connection in enumerate((user, another), start=1):
                commits.append(asyncio.create_task(connection.commit()))
                await until_true(observer, WAITING, count)
            await open_gate()
            await asyncio.gather(*commits)
        assert await take_data(events, 4) == ["x"] * 4


async def test_reading_does_not_wait_for_a_publish(
    hub: Channels, admin: AsyncConnection, user: AsyncConnection, name: str
) -> None:
    async with gate(admin) as open_gate:
        publishing = asyncio.create_task(hub.publish(f"kept:{name}", "x"))
        await until_true(user, WAITING, 1)
        start = await within(hub.position(f"kept:{name}"))
        async with asyncio.timeout(WAIT), hub.subscribe(f"kept:{name}", since=start, history=-1) as events:
            assert events.recovered is True
            assert not publishing.done()
            await open_gate()
            await publishing
            assert await take_data(events, 1) == ["x"]


async def test_a_transaction_may_have_another_search_path(hub: Channels, user: AsyncConnection, name: str) -> None:
    async with hub.subscribe(f"kept:{name}") as events:
        await hub.publish(f"kept:{name}", LARGE, transaction=user)
        await user.execute("SET LOCAL search_path = pg_catalog")
        await user.execute("SELECT public.telex_publish(%s, 'end', 9, 9)", (f"kept:{name}",))
        await user.commit()
        assert await take_data(events, 2) == [LARGE, "end"]


# -- rows that somebody locks

HOLD = "SELECT FROM telex_channels WHERE channel = %s FOR UPDATE"
PIDS = "SELECT array_agg(pid ORDER BY pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'telex'"


async def test_only_publishers_to_a_locked_channel_wait(
    url: str, user: AsyncConnection, admin: AsyncConnection, name: str
) -> None:
    held, free = f"kept:{name}", f"kept:{name}:free"
    async with hub_on(PostgresBackend(url, timeout=0.5)) as hub, hub.subscribe([held, free, name]) as events:
        await hub.publish([held, free], "before")
        stands = await hub.position(held)
        await user.execute(HOLD, (held,))
        connections = await value(admin, PIDS)
        waiting = [asyncio.create_task(hub.publish(held, "never")) for _ in range(20)]
        for number in range(5):
            await within(hub.publish([free, name], str(number)), 0.4)
            assert await within(hub.position(held), 0.4) == stands
        for refused in await within(asyncio.gather(*waiting, return_exceptions=True), 3):
            assert isinstance(refused, BackendUnavailable)
            assert f"holds the lock on the row of {held!r} in telex_channels" in refused.detail
        # Nothing was cut, and nobody was disturbed.
        assert await value(admin, PIDS) == connections
        await user.rollback()
        await hub.publish(held, "after")
        heard = await take(events, 13)
        assert [item.text for item in heard if isinstance(item, Event) and item.channel == held] == ["before", "after"]
        assert hub.statistics().reconnects == hub.statistics().gaps == 0


async def test_a_publisher_goes_on_when_the_lock_is_gone(
    hub: Channels, user: AsyncConnection, admin: AsyncConnection, name: str
) -> None:
    held = f"kept:{name}"
    async with hub.subscribe(held) as events:
        await hub.publish(held, "in time", transaction=user)
        await user.execute("SET CONSTRAINTS ALL IMMEDIATE")
        given_up = asyncio.create_task(hub.publish(held, "given up"))
        waiting = asyncio.create_task(hub.publish(held, "patient"))
        await until_true(admin, WAITING, 1)
        given_up.cancel()
        await asyncio.wait([given_up])
        assert given_up.cancelled()
        # It waits, lets others go first, and waits again.
        for count in (1, 0, 1):
            await until_true(admin, WAITING, count)
        await user.commit()
        await within(waiting)
        assert await take_data(events, 2) == ["in time", "patient"]


async def test_nodes_that_start_together_wait_for_each_other(
    url: str, user: AsyncConnection, admin: AsyncConnection
) -> None:
    await user.execute("SELECT pg_advisory_xact_lock(hashtext('telex_'))")
    backend = PostgresBackend(url)
    opening = asyncio.create_task(backend.open())
    await until_true(admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
    # Longer than publishers hold the connection for a lock.
    await asyncio.wait([opening], timeout=4 * module.PATIENCE)
    await user.commit()
    await within(opening)
    await backend.close()


# -- history as rows

ROWS = "SELECT count(*) FROM telex_channels WHERE channel LIKE %s"
AGED = "SELECT max(id) / 1e6 + 0.3 < extract(epoch FROM now()) FROM telex_events WHERE channel = %s"
EVENTS = "SELECT count(*) FROM telex_events WHERE channel = %s"


async def test_reading_leaves_no_row(hub: Channels, admin: AsyncConnection, name: str) -> None:
    names = [f"kept:{name}:{number}" for number in range(50)]
    start = await hub.position(names[0])
    async with hub.subscribe(names), hub.subscribe(names[0], since=start, history=-1) as events:
        assert events.recovered is True
        assert await hub.position(names[0]) == start
    assert await value(admin, ROWS, f"kept:{name}:%") == 0


async def test_history_ages_by_seconds(url: str, admin: AsyncConnection, name: str) -> None:
    kept = f"kept:{name}"
    async with hub_on(url, Keep(size=50, seconds=0.3)) as hub:
        start = await hub.position(kept)
        await hub.publish(kept, "1")
        await hub.publish(kept, "2")
        middle = await hub.position(kept)
        async with hub.subscribe(kept, history=-1) as events:
            assert await take_data(events, 2) == ["1", "2"]
        await until_true(admin, AGED, kept)
        async with (
            hub.subscribe(kept, history=-1) as none,
            hub.subscribe(kept, since=start) as behind,
            hub.subscribe(kept, since=middle) as there,
        ):
            assert (none.qsize, behind.recovered, there.recovered) == (0, False, True)
            await hub.publish(kept, "3")
            assert await take_data(there, 1) == await take_data(none, 1) == ["3"]
            assert [type(item) for item in await take(behind, 2)] == [Gap, Event]
        assert await value(admin, EVENTS, kept) == 1


async def test_no_more_is_kept_than_asked_for(url: str, admin: AsyncConnection, name: str) -> None:
    kept = f"kept:{name}"
    async with hub_on(url, Keep(size=40)) as hub, hub_on(url, Keep(size=3)) as frugal:
        for number in range(45):
            await hub.publish(kept, str(number))
        assert await value(admin, EVENTS, kept) == 40
        async with frugal.subscribe(kept, history=-1) as events:
            assert await take_data(events, 3) == ["42", "43", "44"]
        for number in range(4):
            await frugal.publish(kept, str(number))
        assert await value(admin, EVENTS, kept) == 3


@pytest.mark.parametrize("keep", [Keep(10**30, 1e-3), Keep(10**12, 10 * 365 * 86_400.0)], ids=["short", "long"])
async def test_odd_numbers_are_kept(url: str, name: str, keep: Keep) -> None:
    async with hub_on(url, keep) as hub, hub.subscribe(f"kept:{name}", history=10**30) as events:
        await hub.publish(f"kept:{name}", "x")
        assert await take_data(events, 1) == ["x"]


@pytest.mark.parametrize("seconds", ["1e300", "'Infinity'", "NULL"])
async def test_other_programs_may_keep_for_ever(hub: Channels, admin: AsyncConnection, name: str, seconds: str) -> None:
    await admin.execute(f"SELECT telex_publish('kept:{name}', 'x', 5, {seconds})".encode())
    async with hub.subscribe(f"kept:{name}", history=1) as events:
        assert await take_data(events, 1) == ["x"]


async def test_what_has_aged_is_swept_and_its_channel_forgotten_later(
    url: str, admin: AsyncConnection, user: AsyncConnection, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY", 1)
    aged, busy, held, last = (f"kept:{name}:{each}" for each in ("aged", "busy", "held", "last"))
    age = "UPDATE telex_channels SET expires = expires - interval '1 minute' - %s::interval WHERE channel = ANY(%s)"

    async def rows() -> dict[str, int]:
        query = (
            "SELECT right(c.channel, 4), count(e.id)::int FROM telex_channels AS c LEFT JOIN telex_events AS e"
            " USING (channel) WHERE c.channel LIKE %s GROUP BY 1"
        )
        found = await (await admin.execute(query, (f"kept:{name}:%",))).fetchall()
        return {str(channel): int(events) for channel, events in found}

    async with hub_on(url) as hub:
        await hub.publish([aged, busy, held, last], "x")
        await admin.execute(age, ("0 s", [aged, busy, held]))
        await user.execute("SELECT FROM telex_events WHERE channel = %s FOR UPDATE", (busy,))
        await user.execute(HOLD, (held,))
        await within(hub.publish(name, "sweep"), 2)
        assert await rows() == {"aged": 0, "busy": 1, "held": 0, "last": 1}
        await user.rollback()
        await within(hub.publish(name, "sweep"), 2)
        assert await rows() == {"aged": 0, "busy": 0, "held": 0, "last": 1}
        stands = await hub.position(aged)
        async with hub.subscribe(aged, since=stands) as events:
            assert events.recovered is True
        await admin.execute(age, ("2 days", [aged, held]))
        await user.execute(HOLD, (held,))
        await within(hub.publish(name, "sweep", transaction=user), 2)
        assert await rows() == {"busy": 0, "held": 0, "last": 1}
        async with hub.subscribe(aged, since=stands) as events:
            assert events.recovered is False


async def test_a_large_value_waits_for_no_older_one(
    hub: Channels, admin: AsyncConnection, user: AsyncConnection, name: str
) -> None:
    await admin.execute("INSERT INTO telex_values VALUES (-1, 'old', '2000-01-01'), (-2, 'old', '2000-01-01')")
    await user.execute("SELECT FROM telex_values WHERE id = -1 FOR UPDATE")
    async with hub.subscribe(name) as events:
        await within(hub.publish(name, LARGE), 2)
        assert await take_data(events, 1) == [LARGE]
    assert await value(admin, "SELECT array_agg(id) FROM telex_values WHERE id < 0") == [-1]


# -- roles and prefixes


TELLING = "EXECUTE ON FUNCTION pg_control_system(), pg_walfile_name(pg_lsn)"
"""What tells servers apart."""


@pytest.fixture
async def poor(admin: AsyncConnection, url: str) -> AsyncIterator[str]:
    """The URL of a role that may create nothing, in a schema of its own."""
    await admin.execute("CREATE ROLE poor LOGIN; CREATE SCHEMA elsewhere; GRANT USAGE ON SCHEMA elsewhere TO poor")
    yield f"{url.replace('telex@', 'poor@')}?options=-csearch_path%3Delsewhere"
    await admin.execute(f"DROP SCHEMA elsewhere CASCADE; DROP ROLE poor; GRANT {TELLING} TO PUBLIC")


async def set_up(url: str, prefix: str, rights: str) -> None:
    async with await AsyncConnection.connect(url.replace("poor@", "telex@"), autocommit=True) as admin:
        await admin.execute(postgres.schema_with(prefix).encode())
        await admin.execute(rights.encode())


RIGHTS = (
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA elsewhere TO poor;"
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA elsewhere TO poor;"
)


@pytest.mark.parametrize("create_schema", [True, False])
async def test_who_may_not_create_is_told_what_to_do(poor: str, admin: AsyncConnection, create_schema: bool) -> None:
    backend = PostgresBackend(poor, create_schema=create_schema)
    with pytest.raises(BackendUnavailable, match=r"postgres\.SCHEMA once .* create_schema=False") as raised:
        await within(Channels(backend, channels=["a"]).__aenter__())
    assert ("permission denied" if create_schema else "does not exist") in raised.value.detail
    await until_true(admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'poor'")


async def test_who_may_not_use_the_tables_is_told_what_to_do(poor: str) -> None:
    await set_up(poor, "telex_", "")
    with pytest.raises(BackendUnavailable, match=r"permission denied for table .* let the role of the app use them"):
        await within(PostgresBackend(poor, create_schema=False).open())


@pytest.mark.parametrize(("prefix", "more"), [("telex_", ""), ("shop_", f"REVOKE {TELLING} FROM PUBLIC")])
async def test_a_role_without_create_uses_what_is_there(poor: str, prefix: str, more: str) -> None:
    await set_up(poor, prefix, RIGHTS + more)
    backend = PostgresBackend(poor, prefix=prefix, create_schema=False)
    async with hub_on(backend) as hub, await AsyncConnection.connect(poor) as user:
        start = await hub.position("kept:1")
        async with hub.subscribe(["kept:1", "live"]) as events:
            await hub.publish(["kept:1", "live"], LARGE)
            await hub.publish(["kept:1", "live"], "x", transaction=user)
            await user.commit()
            assert sorted(await take_data(events, 4)) == ["x", "x", LARGE, LARGE]
        # What the owner of the functions may read counts: another role says the same.
        async with hub_on(PostgresBackend(poor.replace("poor@", "telex@"), prefix=prefix)) as another:
            assert (await another.position("kept:1")).epoch == start.epoch


async def test_a_server_that_tells_nothing_of_itself_carries_channels(poor: str) -> None:
    owned = "GRANT CREATE ON SCHEMA elsewhere TO poor; ALTER FUNCTION telex_epoch(oid) OWNER TO poor;"
    await set_up(poor, "telex_", f"{RIGHTS}{owned}REVOKE {TELLING} FROM PUBLIC")
    async with hub_on(PostgresBackend(poor, create_schema=False)) as hub:
        start = await hub.position("kept:1")
        await hub.publish("kept:1", "x")
        async with hub.subscribe("kept:1", since=start) as events:
            assert await take_data(events, 1) == ["x"]


async def test_apps_with_different_prefixes_do_not_hear_each_other(url: str, admin: AsyncConnection) -> None:
    shop, blog = (PostgresBackend(url, prefix=prefix) for prefix in ("shop_", "blog_of_twenty_chars"))
    async with (
        hub_on(shop) as here,
        hub_on(blog) as there,
        here.subscribe(["kept:same", "same"]) as events,
        there.subscribe(["kept:same", "same"]) as others,
    ):
        await here.publish(["kept:same", "same"], "here")
        await there.publish(["kept:same", "same"], "there")
        assert await take_data(events, 2) == ["here", "here"]
        assert await take_data(others, 2) == ["there", "there"]
        await admin.execute("SELECT shop_publish('same', 'by hand', NULL, NULL)")
        assert await take_data(events, 1) == ["by hand"]


@pytest.mark.parametrize("prefix", ["", "shop.", "Shop_", "1_", "é_", "a" * 21, 'x"; DROP TABLE users; --'])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match="cannot begin the names of tables"):
        PostgresBackend("postgresql://", prefix=prefix)
    with pytest.raises(ImproperlyConfiguredException, match="cannot begin the names of tables"):
        postgres.schema_with(prefix)


def test_positions_of_channels_without_events_are_texts_like_others() -> None:
    assert Position.parse(str(Position("0123456789ab", 493_000))) == Position("0123456789ab", 493_000)


# -- a process with many clients


async def test_a_process_with_thousands_of_descriptors_publishes_and_reads(url: str, name: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with ExitStack() as descriptors:
        descriptors.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            descriptors.enter_context(socket.socket())
        async with hub_on(url) as hub:
            for number in range(2):
                await hub.publish(f"kept:{name}", str(number))
                async with hub.subscribe(f"kept:{name}", history=-1) as events:
                    assert await take_data(events, number + 1) == [str(each) for each in range(number + 1)]
