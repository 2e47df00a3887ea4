"""The backend for a cluster of Redis 7 or newer, or Valkey: sharded pub/sub, each channel on the node of its slot.

A channel's shard channel, its log and the log's head share one hash tag, and so one slot, one node and one script. A
listener has a connection to each node that owns a subscribed channel. When a slot moves, the node unsubscribes its
channels; when a node fails, its connection ends. In both cases only the affected channels are subscribed to again, on
the node that owns them then.

So failover needs no separate code. While a slot has no primary, its subscriptions are tried again and publishes raise;
when a replica is promoted, the slot map shows it. The replica may lack events that its primary had confirmed. It is
another reign, so each history begins a new epoch there, and all subscribers get a gap (see :mod:`.scripts`). A slot
that moves has the same effect although no event is lost, because a node cannot distinguish the two cases.

``ASK`` is not followed: like ``TRYAGAIN`` it causes a retry. An event published on the node that a slot moves to would
reach no subscriber, because subscribers stay on the old node until the move is complete.

Not detected: a slot moves away, its new node is replaced by a replica that lacks the channel's first event there, and
the slot moves back. The channel's head is then unchanged.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import ClassVar, Final, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Connection
from redis.exceptions import NoScriptError

from telex.channels.backends.base import BrokerRefusal, Listener, OnDemand, Sink
from telex.channels.backends.redis.connection import REDIRECTED, Command, RedisConnection
from telex.channels.backends.redis.followed_logs import FollowedLogs
from telex.channels.backends.redis.scripts import HISTORY, PUBLISH_LIVE, PUBLISH_SHARDED, evaluated
from telex.channels.backends.redis.single import RedisBackend, positions_of, read_event, tagged
from telex.channels.backends.redis.slots import Address, Node, SlotMap
from telex.channels.events import DataKind, Position
from telex.channels.names import Target, TopicName
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException

__all__ = ("RedisClusterBackend",)

logger: Final = logging.getLogger("telex.channels")

DEFAULT_PORT: Final = 6379

PAUSE_SECONDS: Final = 0.05
"""The pause between two attempts to find the node of a slot that is moving."""

MAP_SECONDS: Final = 5.0
"""The interval at which the slot map is requested again, because replaced nodes do not always report it.

A partitioned node does not detect that it was replaced: it keeps its subscribers and may still accept publishes.
"""


_NODE_ID: Final = re.compile(rb"[0-9a-f]{40}")


class _ClusterListener(Listener):
    """Connections to the nodes of the subscribed channels. ``_homes`` maps each shard channel to its node."""

    def __init__(self, backend: RedisClusterBackend, sink: Sink) -> None:
        self._backend = backend
        self._sink = sink
        self._links: dict[Address, RedisConnection] = {}
        self._homes: dict[bytes, Node] = {}
        self._leaving: set[bytes] = set()
        self._kept = FollowedLogs(backend, sink)

    async def subscribe(self, topics: Collection[TopicName]) -> None:
        names = {self._backend.shard_name(topic.name): topic for topic in topics}
        settled: set[bytes] = set()
        for address, answers in (await self._ask_for(names)).items():
            settled.update(await self._confirmed(address, answers))
            for name, answer in answers.items():
                if isinstance(refusal := _failure_of(answer), BrokerRefusal):
                    settled.add(name)
                    self._homes.pop(name, None)
                    self._sink.refused(names[name], refusal)
        for topic in topics:
            self._kept.add(topic)
        homeless = [name for name in names if name not in settled]
        if homeless:
            # Their slot is moving, or its node is unavailable. The sink subscribes to these again.
            for name in homeless:
                self._homes.pop(name, None)
            self._backend.slots.forget()
            await asyncio.sleep(PAUSE_SECONDS)
            self._sink.dropped([names[name] for name in homeless])

    async def _ask_for(self, names: Iterable[bytes]) -> dict[Address, dict[bytes, asyncio.Future[object]]]:
        """Send a subscription for each name to its node; returns the pending answers of the available nodes."""
        asked: dict[Address, dict[bytes, asyncio.Future[object]]] = {}
        away: set[Node] = set()
        for name in names:
            node = await self._backend.slots.owner(name)
            if node is None or node in away:
                continue
            try:
                link = await self._link_to(node.address)
                # Set before the request, because the node may end the subscription at once.
                self._homes[name] = node
                [answer] = link.send((b"SSUBSCRIBE", name))
            except BackendUnavailable:
                away.add(node)
            else:
                asked.setdefault(node.address, {})[name] = answer
        return asked

    async def _confirmed(self, address: Address, answers: Mapping[bytes, asyncio.Future[object]]) -> list[bytes]:
        """Wait for the answers of one node; returns the names that are subscribed there."""
        with suppress(BackendUnavailable, *REDIRECTED):
            await self._links[address].answers(answers.values())
        heard = [name for name, answer in answers.items() if answer.done() and _failure_of(answer) is None]
        # A replica confirms too, but does not reliably receive the events of its primary. Checked after the answer,
        # because a node that is demoted later ends its subscriptions.
        if heard and not await self._backend.is_primary(address):
            await self._leave(address, heard)
            return []
        return heard

    async def unsubscribe(self, topics: Collection[TopicName]) -> None:
        self._kept.discard(topics)
        leaving: dict[Address, list[bytes]] = {}
        for topic in topics:
            name = self._backend.shard_name(topic.name)
            home = self._homes.pop(name, None)
            if home is not None:
                leaving.setdefault(home.address, []).append(name)
        for address, names in leaving.items():
            await self._leave(address, names)

    async def _leave(self, address: Address, names: Collection[bytes]) -> None:
        link = self._links[address]
        self._leaving.update(names)
        # If the node failed, its subscriptions have ended, and its connection drops its other names.
        with suppress(BackendUnavailable, *REDIRECTED):
            await link.call(*((b"SUNSUBSCRIBE", name) for name in names))
        self._leaving.difference_update(names)

    async def ping(self) -> None:
        # A connection that gets no answer fails and drops its own channels.
        await asyncio.gather(*(link.call((b"PING",)) for link in self._links.values()), return_exceptions=True)
        with suppress(BackendUnavailable):
            await self._kept.touch()

    async def leave_old_homes(self) -> None:
        """Move subscriptions to the new nodes of slots whose old node has not ended them."""
        successor = self._backend.slots.successor
        owners = {successor(name, home) for name, home in self._homes.items()}
        # Shortly after a failover some maps still show the old primary. It already reports that it is a replica.
        sure = {owner for owner in owners if owner and await self._backend.is_primary(owner.address)}
        self._drop([name for name, home in self._homes.items() if successor(name, home) in sure])

    async def close(self) -> None:
        """End all connections."""
        self._homes.clear()
        for link in self._links.values():
            await link.close()

    async def _clear_away(self) -> None:
        """Close and remove failed connections: their nodes may never return."""
        for address, link in tuple(self._links.items()):
            if link.is_closed:
                del self._links[address]
                await link.close()

    async def _link_to(self, address: Address) -> RedisConnection:
        link = self._links.get(address)
        if link is not None and not link.is_closed:
            return link
        await self._clear_away()
        connection, hear, lose = self._backend.connection_to(address), self._hear, self._lose
        link = RedisConnection(connection, self._backend.timeout, partial(hear, address), partial(lose, address))
        await link.open()
        self._links[address] = link
        return link

    def _hear(self, address: Address, reply: list[bytes]) -> bool:
        if reply[0] == b"smessage":
            # Ignores events of a replaced node, which may still have publishers.
            home = self._homes.get(reply[1])
            if home is not None and home.address == address:
                self._take(home, self._backend.channel_name(reply[1]), reply[2])
            return True
        if reply[0] != b"sunsubscribe":
            return False
        if reply[1] in self._leaving:
            # The first one is the answer. If the slot moves at the same time, a second one follows.
            self._leaving.discard(reply[1])
            return False
        # Not requested: the slot has moved.
        if self._is_heard_at(address, reply[1]):
            self._backend.slots.forget()
            self._drop([reply[1]])
        return True

    def _take(self, home: Node, channel: str, message: bytes) -> None:
        node, _, rest = message.partition(b" ")
        if node == home.name:
            self._sink.deliver(read_event(channel, rest))
        elif not _NODE_ID.fullmatch(node):
            # Published by another program. Otherwise it was forwarded by a node that is, or was, in the same shard.
            self._sink.deliver(read_event(channel, message))

    def _lose(self, address: Address, _: BackendUnavailable) -> None:
        self._backend.slots.forget()
        self._drop([name for name in self._homes if self._is_heard_at(address, name)])

    def _is_heard_at(self, address: Address, name: bytes) -> bool:
        home = self._homes.get(name)
        return home is not None and home.address == address

    def _drop(self, names: Iterable[bytes]) -> None:
        gone = [name for name in names if self._homes.pop(name, None) is not None]
        if gone:
            self._sink.dropped([TopicName(self._backend.channel_name(name)) for name in gone])


class RedisClusterBackend(RedisBackend):
    """Channels over a Redis cluster.

    ``url`` is ``redis+cluster://host:port``, or ``rediss+cluster://`` with TLS. It may list several nodes, separated by
    commas, of which one must answer. User, password and options are as in ``redis://``. Patterns are not supported,
    because no node has all channels. A channel whose slot moves, or whose node is replaced by a replica, begins a new
    epoch. Requests wait up to twice the ``timeout`` (seconds) for a slot that is moving. With TLS the certificates must
    contain the host names that the cluster announces (``cluster-announce-hostname`` with
    ``cluster-preferred-endpoint-type hostname``).
    """

    supports_patterns = False
    is_sharded = True
    publish_script = PUBLISH_SHARDED
    scripts: ClassVar[tuple[str, ...]] = (publish_script, PUBLISH_LIVE, HISTORY)

    def __init__(self, url: str, *, prefix: str = "telex:", timeout: float = 5.0) -> None:
        first, seeds = _read_url(url)
        super().__init__(first, prefix=prefix, timeout=timeout)
        self.slots: SlotMap = SlotMap(seeds, self._link_to)
        self._nodes: dict[Address, OnDemand[RedisConnection]] = {}
        self._listeners: set[_ClusterListener] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._reaches_all = True

    @property
    def can_publish(self) -> bool:
        return self._reaches_all and all(node.is_open for node in self._nodes.values())

    async def open(self) -> None:
        try:
            await self._reach_a_node()
        except BaseException:
            await self.close()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="telex.channels.redis.slots")

    async def _watch(self) -> None:
        # Checked on each turn, because a client library may lose a cancellation.
        while self._watcher is not None:
            await asyncio.sleep(MAP_SECONDS)
            try:
                await self._look_around()
            except BackendUnavailable:
                # Requests to an unavailable node raise on their own.
                self._reaches_all = False
            except Exception:
                logger.exception("the map of the cluster's slots cannot be read")

    async def _look_around(self) -> None:
        await self._clear_away()
        await self.slots.refresh()
        for listener in tuple(self._listeners):
            await listener.leave_old_homes()
        owners = set(await self.slots.load())
        pings = (self._ping(owner.address) for owner in owners if owner is not None)
        self._reaches_all = None not in owners and all(await asyncio.gather(*pings))

    async def _ping(self, address: Address) -> bool:
        try:
            await (await self._link_to(address)).call((b"PING",))
        except BrokerRefusal:
            # An answer too: a node that cannot save refuses PING.
            return True
        except BackendUnavailable:
            return False
        return True

    async def _reach_a_node(self) -> None:
        """Check at the start that a node answers at an address of the slot map, not only at that of the URL.

        :raises BackendUnavailable: none answers: the announced names do not resolve, or no certificate contains them.
        """
        failure: BackendUnavailable | None = None
        for owner in dict.fromkeys(await self.slots.load()):
            if owner is None:
                continue
            try:
                await self._link_to(owner.address)
            except BackendUnavailable as error:
                failure = error
            else:
                return
        if failure is not None:
            raise BackendUnavailable(
                f"no node answers where the cluster says that it is: {failure.detail}"
            ) from failure

    async def close(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        self.slots.close()
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()

    async def publish(self, targets: Sequence[Target], data: bytes, kind: DataKind = "bytes") -> Mapping[str, Position]:
        asked = [self._ask(target[0], self._publication(target, data, kind)) for target in targets]
        if len(asked) == 1:
            return positions_of(targets, [await asked[0]])
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for outcome in answers:
            if isinstance(outcome, BaseException):
                raise outcome
        return positions_of(targets, answers)

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        await self.slots.load()
        listener = _ClusterListener(self, sink)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            await listener.close()

    # -- names

    def shard_name(self, channel: str) -> bytes:
        """The shard channel of ``channel``."""
        return tagged(self.prefix, channel)

    def channel_name(self, shard: bytes) -> str:
        """The channel of the shard channel ``shard``."""
        return shard[len(self.prefix) + 2 : -1].decode()

    def _topic_name(self, channel: str) -> bytes:
        return self.shard_name(channel)

    def _published_live(self) -> Command:
        return evaluated(PUBLISH_LIVE, 0)

    # -- nodes

    async def is_primary(self, address: Address) -> bool:
        """Whether a node reports that it is a primary; false if it does not answer."""
        try:
            [info] = await (await self._link_to(address)).call((b"INFO", b"replication"))
        except BackendUnavailable:
            return False
        return b"role:master" in cast("bytes", info)

    def connection_to(self, address: Address) -> Connection:
        """A connection to one node, not opened yet."""
        connection = self._new_connection()
        connection.host, connection.port = address
        return connection

    async def _link_to(self, address: Address) -> RedisConnection:
        if address not in self._nodes:
            self._nodes[address] = OnDemand(lambda: self._connect(self.connection_to(address)))
        return await self._nodes[address].get()

    async def _clear_away(self) -> None:
        """Close and remove failed connections, which would accumulate if nodes return at other addresses."""
        for address in tuple(self._nodes):
            if self._nodes[address].is_idle:
                await self._nodes.pop(address).close()

    async def _ask(self, channel: str, command: Command) -> object:
        reason = ""
        try:
            # Twice the time-out, so that one silent node does not use it up.
            async with asyncio.timeout(2 * self.timeout):
                while True:
                    link = await self._link_to((await self._owner(channel)).address)
                    try:
                        [answer] = await link.call(command)
                    except NoScriptError:
                        await self._load_scripts(link)
                    except REDIRECTED as error:
                        reason = f": {type(error).__name__}: {error}"
                        self.slots.forget()
                        await asyncio.sleep(PAUSE_SECONDS)
                    else:
                        return answer
        except BrokerRefusal:
            raise
        except BackendUnavailable:
            # Another node may have replaced the failed one.
            self.slots.forget()
            raise
        except TimeoutError as error:
            self.slots.forget()
            detail = f"{channel!r} had no node of the cluster for {2 * self.timeout:g} s{reason}"
            raise BackendUnavailable(detail) from error

    async def _owner(self, channel: str) -> Node:
        owner = await self.slots.owner(self.shard_name(channel))
        if owner is None:
            raise BackendUnavailable(f"no node of the cluster has the slot of {channel!r}")
        return owner


def _failure_of(answer: asyncio.Future[object]) -> BaseException | None:
    return answer.exception() if answer.done() and not answer.cancelled() else None


def _read_url(url: str) -> tuple[str, list[Address]]:
    """The URL of the first node in redis-py's form, and the addresses of all listed nodes."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    seeds: list[Address] = []
    for host in hosts.split(","):
        one = urlsplit(f"//{host}")
        if not one.hostname:
            raise ImproperlyConfiguredException(f"{url!r} names no node: write redis+cluster://host:port")
        seeds.append((one.hostname, one.port or DEFAULT_PORT))
    scheme = parts.scheme.removesuffix("+cluster")
    return urlunsplit(parts._replace(scheme=scheme, netloc=user + at + hosts.split(",")[0])), seeds
