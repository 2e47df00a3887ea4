"""The map from the 16,384 slots of a Redis cluster to its nodes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, TypeAlias, cast

from redis.crc import key_slot

from telex.channels.backends.redis.connection import RedisConnection
from telex.exceptions import BackendUnavailable

__all__ = ("Address", "Node", "SlotMap")

Address: TypeAlias = tuple[str, int]
"""The host and the port of a node."""

SLOTS: Final = 16_384


class Node(NamedTuple):
    """A node's address and its name in the cluster. The same node may have several addresses."""

    address: Address
    name: bytes


class _Map(NamedTuple):
    """The map that one node reported, and the newest cluster ``epoch`` that this node has seen."""

    epoch: int
    owners: list[Node | None]
    replicas: frozenset[Address]


class SlotMap:
    """The cluster's slot map, requested at its first use and discarded when it was wrong.

    A node that is partitioned from the others, or was suspended, reports an outdated map, in which it may own slots
    that others have taken over. Each failover and each move of a slot begins a new epoch. So a map with an older epoch
    than one seen before is used only if no node has a newer one.
    """

    def __init__(self, seeds: Sequence[Address], link_to: Callable[[Address], Awaitable[RedisConnection]]) -> None:
        self._seeds = frozenset(seeds)
        self._link_to = link_to
        self._primaries: list[Address] = list(seeds)
        self._replicas: frozenset[Address] = frozenset()
        self._owners: list[Node | None] | None = None
        self._epoch = 0
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """Discard the map, so that the next use requests it again."""
        self._owners = None

    def close(self) -> None:
        """Discard the map. The next one may be requested on another event loop."""
        self.forget()
        self._lock = asyncio.Lock()

    async def owner(self, name: bytes) -> Node | None:
        """The primary node of the slot of ``name``, or ``None`` if the slot has none.

        :raises BackendUnavailable: no node answers.
        """
        return (await self.load())[key_slot(name)]

    async def load(self) -> list[Node | None]:
        """The owner of each slot.

        :raises BackendUnavailable: no node answers.
        """
        if self._owners is not None:
            return self._owners
        async with self._lock:
            if self._owners is None:
                self._owners = await self._ask()
            return self._owners

    async def refresh(self) -> None:
        """Request the map again. Until the answer, other tasks use the old map.

        :raises BackendUnavailable: no node answers.
        """
        async with self._lock:
            self._owners = await self._ask()

    def successor(self, name: bytes, home: Node) -> Node | None:
        """The node that has the slot of ``name`` according to the map, if that is not ``home``."""
        owner = None if self._owners is None else self._owners[key_slot(name)]
        return None if owner is None or owner.name == home.name else owner

    async def _ask(self) -> list[Node | None]:
        failure = BackendUnavailable("no node of the cluster is known")
        stale: _Map | None = None
        # Replicas last: they may be the only known nodes that still answer.
        for address in (*self._primaries, *self._replicas.difference(self._primaries)):
            try:
                told = await self._map_of(address)
            except BackendUnavailable as error:
                failure = error
                continue
            if told.epoch >= self._epoch:
                return self._believe(told)
            if stale is None or told.epoch > stale.epoch:
                stale = told
        if stale is not None:
            return self._believe(stale)
        raise BackendUnavailable(f"no node of the cluster answers: {failure.detail}") from failure

    async def _map_of(self, address: Address) -> _Map:
        if address in self._primaries:
            # Next time another one is asked first: this one may keep us waiting, or have an old map.
            self._primaries.remove(address)
            self._primaries.append(address)
        link = await self._link_to(address)
        info, slots = await link.call((b"CLUSTER", b"INFO"), (b"CLUSTER", b"SLOTS"))
        return _read(cast("bytes", info), cast("list[list[object]]", slots), address)

    def _believe(self, told: _Map) -> list[Node | None]:
        current = {owner.address for owner in told.owners if owner is not None}.union(self._seeds)
        known = [address for address in self._primaries if address in current]
        self._primaries = [*current.difference(known), *known]
        self._replicas = told.replicas
        self._epoch = told.epoch
        return told.owners


def _read(info: bytes, ranges: list[list[object]], asked: Address) -> _Map:
    """The answers to ``CLUSTER INFO``, and to ``CLUSTER SLOTS``: ranges of slots, each with a primary and replicas."""
    found = re.search(rb"^cluster_current_epoch:(\d+)", info, re.MULTILINE)
    owners: list[Node | None] = [None] * SLOTS
    replicas: set[Address] = set()
    for first, last, *nodes in ranges:
        primary, *others = (_node(cast("list[object]", node), asked) for node in nodes)
        replicas.update(node.address for node in others)
        slots = range(cast("int", first), cast("int", last) + 1)
        owners[slots.start : slots.stop] = [primary] * len(slots)
    return _Map(int(found[1]) if found else 0, owners, frozenset(replicas))


def _node(told: list[object], asked: Address) -> Node:
    host, port, name, *_ = cast("tuple[bytes | None, int, bytes]", told)
    # A node without a configured host leaves it out. It is the node that answered.
    return Node((host.decode() if host else asked[0], port), name)
