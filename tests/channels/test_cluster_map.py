"""The map of a cluster alone: whom it asks, and whom it believes."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from telex.channels.backends.redis.connection import RedisConnection
from telex.channels.backends.redis.slots import Address, SlotMap
from telex.exceptions import BackendUnavailable

A, B, C = ("a", 1), ("b", 2), ("c", 3)


class Told:
    """A connection to a node which believes that in the cluster's term ``term`` one primary has all slots."""

    def __init__(self, term: int, primary: Address, *replicas: Address) -> None:
        nodes = [[host.encode(), port, f"node {host}".encode(), []] for host, port in (primary, *replicas)]
        self._answers: dict[bytes, object] = {
            b"INFO": b"cluster_state:ok\r\ncluster_current_epoch:%d\r\n" % term,
            b"SLOTS": [[0, 16_383, *nodes]],
        }

    async def call(self, *asked: tuple[bytes, bytes]) -> list[object]:
        return [self._answers[what] for _, what in asked]


class Nodes(dict[Address, Told]):
    """What each node that answers tells."""

    def __init__(self) -> None:
        self.asked: list[Address] = []

    async def link_to(self, address: Address) -> RedisConnection:
        self.asked.append(address)
        await asyncio.sleep(0)
        if address not in self:
            raise BackendUnavailable(f"{address[0]} is away")
        return cast("RedisConnection", self[address])


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


async def owner_of(slots: SlotMap) -> Address | None:
    slots.forget()
    owner = await slots.owner(b"any")
    return owner and owner.address


async def test_a_replica_is_asked_when_no_primary_answers(nodes: Nodes) -> None:
    slots = SlotMap([A], nodes.link_to)
    nodes[A] = Told(1, A, B)
    assert await owner_of(slots) == A
    del nodes[A]
    nodes[B] = Told(2, B)
    assert await owner_of(slots) == B
    # What is left of the old primary is only that it was named.
    nodes.asked.clear()
    nodes[B] = Told(3, B, C)
    assert await owner_of(slots) == B
    assert C not in nodes.asked


async def test_a_node_with_an_older_term_is_not_believed_while_another_knows_better(nodes: Nodes) -> None:
    slots = SlotMap([A, B], nodes.link_to)
    nodes[A], nodes[B] = Told(1, A), Told(2, B)
    assert await owner_of(slots) == A
    for _ in range(3):
        assert await owner_of(slots) == B
    # The cluster was made anew, or who knew the newest term is gone: the newest that there is.
    nodes[A], nodes[B] = Told(0, A), Told(1, B)
    assert await owner_of(slots) == B
    assert await owner_of(slots) == B


async def test_one_node_at_two_addresses_is_one(nodes: Nodes) -> None:
    slots = SlotMap([A], nodes.link_to)
    nodes[A] = Told(1, A)
    home = await slots.owner(b"any")
    assert home is not None
    assert slots.successor(b"any", home._replace(address=C)) is None
    nodes[A] = Told(2, B)
    await slots.refresh()
    assert slots.successor(b"any", home) == (B, b"node b")
    slots.forget()
    assert slots.successor(b"any", home) is None


async def test_a_map_that_is_asked_for_again_serves_until_the_answer(nodes: Nodes) -> None:
    slots = SlotMap([A], nodes.link_to)
    nodes[A] = Told(1, A)
    assert await owner_of(slots) == A
    del nodes[A]
    with pytest.raises(BackendUnavailable, match="no node of the cluster answers: a is away"):
        await slots.refresh()
    owner = await slots.owner(b"any")
    assert owner is not None
    assert owner.address == A


def test_a_map_that_was_closed_serves_another_event_loop(nodes: Nodes) -> None:
    slots = SlotMap([A], nodes.link_to)
    nodes[A] = Told(1, A)

    async def use() -> None:
        await asyncio.gather(slots.load(), slots.load())
        slots.close()

    for _ in range(2):
        asyncio.run(use())
    assert nodes.asked == [A, A]
