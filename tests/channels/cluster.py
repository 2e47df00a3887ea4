"""A cluster of three Valkey servers, each with a third of the slots."""

from __future__ import annotations

import time
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.channels.brokers import READY_SECONDS, Valkey, free_port

SLOTS = 16_384
NODE_TIMEOUT_MILLISECONDS = 500


class Node(Valkey):
    """One server; it forgets its data in a restart, but not its place in the cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = free_port()

    def command(self) -> list[str]:
        options = f"--cluster-enabled yes --cluster-port {self.bus} --cluster-require-full-coverage no".split()
        return [*super().command(), *options, "--cluster-node-timeout", str(NODE_TIMEOUT_MILLISECONDS)]

    def ask(self, *command: object) -> Any:
        """The answer to one command."""
        with Redis(port=self.port, decode_responses=True, socket_timeout=5) as client:
            return client.execute_command(*command)

    @property
    def node_id(self) -> str:
        """Its name in the cluster."""
        return str(self.ask("CLUSTER", "MYID"))


class Cluster:
    """Three nodes without replicas: when one is away, its third of the slots is."""

    def __init__(self) -> None:
        self.nodes = [Node() for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    def start(self) -> None:
        """Start, share out the slots, and wait until every node knows it."""
        for index, node in enumerate(self.nodes):
            node.start()
            node.ask("CLUSTER", "ADDSLOTSRANGE", index * SLOTS // 3, (index + 1) * SLOTS // 3 - 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        self.wait()

    def wait(self) -> None:
        """Return when all nodes agree that all slots are served."""
        end = time.monotonic() + READY_SECONDS
        while not all(self._is_settled(node) for node in self.nodes):
            if time.monotonic() > end:
                raise RuntimeError(f"the cluster did not settle: {[node.ask('CLUSTER INFO') for node in self.nodes]}")
            time.sleep(0.05)

    def _is_settled(self, node: Node) -> bool:
        try:
            info = node.ask("CLUSTER", "INFO")
        except RedisError:
            return False
        return "cluster_state:ok" in info and f"cluster_slots_ok:{SLOTS}" in info

    def owner(self, channel: str) -> Node:
        """The node of a channel, which was not moved."""
        slot = key_slot(name_of(channel))
        return self.nodes[sum(slot >= index * SLOTS // 3 for index in (1, 2))]

    def move(self, channel: str, there: Node) -> None:
        """Move the slot of a channel from its owner, with what is in it, as an operator's tools do."""
        here, slot = self.owner(channel), key_slot(name_of(channel))
        there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here.node_id)
        here.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there.node_id)
        while keys := here.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            here.ask("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)
        # Each once: to tell a node again ends the subscriptions in that slot again.
        for node in (there, *[node for node in self.nodes if node is not there]):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", there.node_id)

    def remove(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.remove()


def name_of(channel: str) -> bytes:
    """A name in the slot of a channel."""
    return b"{:%s}" % channel.encode()
