"""Which node of a cluster has which of its 16,384 slots."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, cast

from redis.crc import key_slot

from telex.channels.backends.redis_link import Link
from telex.exceptions import BackendUnavailable

__all__ = ("Address", "Slots")

Address: TypeAlias = tuple[str, int]
"""The host and the port of a node."""

SLOTS: Final = 16_384


class Slots:
    """The cluster's map, asked for when it is needed and forgotten when it was wrong."""

    def __init__(self, seeds: Sequence[Address], link_to: Callable[[Address], Awaitable[Link]]) -> None:
        self._seeds = seeds
        self._link_to = link_to
        self._nodes: list[Address] = list(seeds)
        self._owners: list[Address | None] | None = None
        self._lock = asyncio.Lock()

    def forget(self) -> None:
        """The map is wrong: ask again before the next use."""
        self._owners = None

    async def owner(self, name: bytes) -> Address | None:
        """The primary node of the slot of ``name``, if there is one now.

        :raises BackendUnavailable: no node answers.
        """
        return (await self.load())[key_slot(name)]

    async def load(self) -> list[Address | None]:
        """The owner of each slot.

        :raises BackendUnavailable: no node answers.
        """
        if self._owners is not None:
            return self._owners
        async with self._lock:
            if self._owners is None:
                self._owners = await self._ask()
            return self._owners

    async def _ask(self) -> list[Address | None]:
        failure = BackendUnavailable("no node of the cluster is known")
        for node in tuple(self._nodes):
            # Next time another one is asked first: this one may keep us waiting, or have an old map.
            self._nodes.remove(node)
            self._nodes.append(node)
            try:
                link = await self._link_to(node)
                [answer] = await link.call(b"CLUSTER", b"SLOTS")
            except BackendUnavailable as error:
                failure = error
                continue
            owners = _read(cast("list[list[object]]", answer), node)
            current = {owner for owner in owners if owner is not None}.union(self._seeds)
            known = [each for each in self._nodes if each in current]
            self._nodes = [*current.difference(known), *known]
            return owners
        raise BackendUnavailable(f"no node of the cluster answers: {failure.detail}") from failure


def _read(answer: list[list[object]], asked: Address) -> list[Address | None]:
    """The answer to ``CLUSTER SLOTS``: ranges, each with its first and last slot, its primary and its replicas."""
    owners: list[Address | None] = [None] * SLOTS
    for first, last, primary, *_ in answer:
        host, port, *_ = cast("list[bytes | int | None]", primary)
        # A node that was not told its name leaves it out: it is where it was asked.
        address = (cast("bytes", host).decode() if host else asked[0], cast("int", port))
        for slot in range(cast("int", first), cast("int", last) + 1):
            owners[slot] = address
    return owners
