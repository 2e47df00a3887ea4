"""Channels over a cluster of Redis 7 and newer, or Valkey: sharded pub/sub, each channel on the node of its slot.

A channel's shard channel, its log and the log's head share one hash tag, and so one slot, one node and one script. A
listener holds a connection to each node that has a channel of its subscribers. When a slot moves, the node says so by
unsubscribing; when a node dies, its connection ends: then the channels that were there are subscribed to again, where
they are by then, while the others go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Connection
from redis.exceptions import NoScriptError

from telex.channels.backends.base import Listener, OnDemand, Sink, Target, Topic
from telex.channels.backends.redis import PUBLISH, Command, RedisBackend, read_event, tagged
from telex.channels.backends.redis_link import REDIRECTED, Link
from telex.channels.backends.redis_slots import Address, Slots
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException

__all__ = ("RedisClusterBackend",)

DEFAULT_PORT: Final = 6379

PAUSE_SECONDS: Final = 0.05
"""Between two attempts to find the node of a slot that is on its way."""


class _ClusterListener(Listener):
    """Connections to the nodes that have what is subscribed to. ``_homes`` says where each shard channel is heard."""

    def __init__(self, backend: RedisClusterBackend, sink: Sink) -> None:
        self._backend = backend
        self._sink = sink
        self._links: dict[Address, Link] = {}
        self._homes: dict[bytes, Address] = {}
        self._leaving: set[bytes] = set()

    async def subscribe(self, topics: Collection[Topic]) -> None:
        names = [self._backend.shard_name(topic.name) for topic in topics]
        answers: dict[bytes, asyncio.Future[object]] = {}
        links: dict[Link, list[bytes]] = {}
        away: set[Address] = set()
        for name in names:
            address = await self._backend.slots.owner(name)
            if address is None or address in away:
                continue
            try:
                link = await self._link_to(address)
                # From here on the node may end the subscription: it has to be known by then.
                self._homes[name] = address
                [answers[name]] = await link.send(b"SSUBSCRIBE", name)
            except BackendUnavailable:
                away.add(address)
            else:
                links.setdefault(link, []).append(name)
        for link, here in links.items():
            with suppress(BackendUnavailable, *REDIRECTED):
                await link.answers([answers[name] for name in here])
        refused = [name for name in names if not _is_confirmed(answers.get(name))]
        if refused:
            # Their slot is on its way, or its node away. The others are heard; these come again.
            for name in refused:
                self._homes.pop(name, None)
            self._backend.slots.forget()
            await asyncio.sleep(PAUSE_SECONDS)
            self._sink.dropped([Topic(self._backend.channel_name(name)) for name in refused])

    async def unsubscribe(self, topics: Collection[Topic]) -> None:
        leaving: dict[Address, list[bytes]] = {}
        for topic in topics:
            name = self._backend.shard_name(topic.name)
            home = self._homes.pop(name, None)
            if home is not None:
                leaving.setdefault(home, []).append(name)
        for address, names in leaving.items():
            self._leaving.update(names)
            # A node that is gone has taken the subscriptions with it; what else it had is dropped by its link.
            with suppress(BackendUnavailable, *REDIRECTED):
                await self._leave(self._links[address], names)
            self._leaving.difference_update(names)

    async def _leave(self, link: Link, names: Iterable[bytes]) -> None:
        await link.answers([future for name in names for future in await link.send(b"SUNSUBSCRIBE", name)])

    async def ping(self) -> None:
        # A node that does not answer drops its own channels.
        await asyncio.gather(*(link.call(b"PING") for link in self._links.values()), return_exceptions=True)

    async def close(self) -> None:
        """End all connections."""
        self._homes.clear()
        for link in self._links.values():
            await link.close()

    async def _link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is not None:
            if not link.is_closed:
                return link
            await link.close()

        def lose(_: BackendUnavailable) -> None:
            self._drop([name for name, home in self._homes.items() if home == address])

        link = Link(self._backend.connection_to(address), self._backend.timeout, self._hear, lose)
        await link.open()
        self._links[address] = link
        return link

    def _hear(self, reply: list[bytes]) -> bool:
        if reply[0] == b"smessage":
            channel = self._backend.channel_name(reply[1])
            self._sink.deliver(read_event(channel, reply[2]))
            return True
        if reply[0] == b"sunsubscribe" and reply[1] not in self._leaving:
            # Nobody asked for it: the slot has moved.
            self._backend.slots.forget()
            self._drop([reply[1]])
            return True
        return False

    def _drop(self, names: Iterable[bytes]) -> None:
        gone = [name for name in names if self._homes.pop(name, None) is not None]
        if gone:
            self._backend.slots.forget()
            self._sink.dropped([Topic(self._backend.channel_name(name)) for name in gone])


class RedisClusterBackend(RedisBackend):
    """Channels over a cluster.

    ``url`` is ``redis+cluster://host:port``, or ``rediss+cluster://`` with TLS; several nodes may be named, with commas
    between them, of which one must answer. User, password and options are as with ``redis://``. There are no patterns:
    no node knows all channels. A channel whose slot moves begins a new epoch. A slot that is on its way is waited for
    twice the ``timeout``.
    """

    supports_patterns = False
    is_sharded = True
    publish_command = b"SPUBLISH"
    publish_script = PUBLISH.replace("'PUBLISH'", "'SPUBLISH'")

    def __init__(self, url: str, *, prefix: str = "telex:", timeout: float = 5.0) -> None:
        first, seeds = _read_url(url)
        super().__init__(first, prefix=prefix, timeout=timeout)
        self.timeout = timeout
        self.slots: Slots = Slots(seeds, self._link_to)
        self._nodes: dict[Address, OnDemand[Link]] = {}

    async def open(self) -> None:
        try:
            await self.slots.load()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            await node.close()

    async def publish(self, targets: Sequence[Target], data: bytes) -> None:
        def publication(target: Target) -> Callable[[Link], Command]:
            return lambda link: self._publication(link, target, data)

        if len(targets) == 1:
            await self._ask(targets[0][0], publication(targets[0]))
            return
        asked = [self._ask(target[0], publication(target)) for target in targets]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    @asynccontextmanager
    async def listen(self, sink: Sink) -> AsyncIterator[Listener]:
        await self.slots.load()
        listener = _ClusterListener(self, sink)
        try:
            yield listener
        finally:
            await listener.close()

    # -- names

    def shard_name(self, channel: str) -> bytes:
        """The shard channel of ``channel``."""
        return tagged(self._prefix, channel)

    def channel_name(self, shard: bytes) -> str:
        """The channel of the shard channel ``shard``."""
        return shard[len(self._prefix) + 2 : -1].decode()

    def _topic_name(self, channel: str) -> bytes:
        return self.shard_name(channel)

    # -- nodes

    def connection_to(self, address: Address) -> Connection:
        """A connection to one node, not opened yet."""
        connection = self._new_connection()
        connection.host, connection.port = address
        return connection

    async def _link_to(self, address: Address) -> Link:
        if address not in self._nodes:
            self._nodes[address] = OnDemand(lambda: self._connect(self.connection_to(address)))
        return await self._nodes[address].get()

    async def _ask(self, channel: str, command: Callable[[Link], Command]) -> object:
        name = self.shard_name(channel)
        async with self._patience():
            while True:
                owner = await self.slots.owner(name)
                if owner is None:
                    raise BackendUnavailable(f"no node of the cluster has the slot of {channel!r}")
                link = await self._link_to(owner)
                try:
                    [answer] = await link.call(*command(link))
                except NoScriptError:
                    await self._load_scripts(link)
                except REDIRECTED:
                    self.slots.forget()
                    await asyncio.sleep(PAUSE_SECONDS)
                else:
                    return answer

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Let the body find the node of a slot: longer than one node may take to answer, so that it is found out.

        What fails makes the map of slots doubtful: another node may be in the place of a dead one.

        :raises BackendUnavailable: it took too long.
        """
        try:
            async with asyncio.timeout(2 * self.timeout):
                yield
        except BackendUnavailable:
            self.slots.forget()
            raise
        except TimeoutError as error:
            self.slots.forget()
            raise BackendUnavailable(f"a channel had no node of the cluster for {2 * self.timeout:g} s") from error


def _is_confirmed(answer: asyncio.Future[object] | None) -> bool:
    return answer is not None and answer.done() and not answer.cancelled() and answer.exception() is None


def _read_url(url: str) -> tuple[str, list[Address]]:
    """The URL of the first node as redis-py takes it, and the addresses of all that are named."""
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
