"""A cluster of three Valkey servers, each with a third of the slots, and perhaps a replica of the first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.channels.brokers import READY_SECONDS, Valkey
from tests.support.ports import free_port

SLOTS = 16_384
NODE_TIMEOUT_MILLISECONDS = 500


class Node(Valkey):
    """One server; it forgets its data in a restart, but not its place in the cluster."""

    def __init__(self, options: str = "") -> None:
        super().__init__()
        self.bus = free_port()
        self._options = options.split()
        self._is_isolated = False

    def command(self) -> list[str]:
        options = f"--cluster-enabled yes --cluster-port {self.bus} --cluster-require-full-coverage no".split()
        timeout = ["--cluster-node-timeout", str(NODE_TIMEOUT_MILLISECONDS)]
        return [*super().command(), *options, *timeout, *self._options]

    def ask(self, *command: object) -> Any:
        """The answer to one command."""
        with Redis(port=self.port, decode_responses=True, socket_timeout=5) as client:
            return client.execute_command(*command)

    @property
    def node_id(self) -> str:
        """Its name in the cluster."""
        return str(self.ask("CLUSTER", "MYID"))

    @property
    def is_primary(self) -> bool:
        """Whether it takes publishes; as far as it knows."""
        return bool(self.ask("INFO", "replication")["role"] == "master")

    def errors(self, kind: str) -> int:
        """How often it has answered with an error, such as ``MOVED``."""
        return int(self.ask("INFO", "errorstats").get(f"errorstat_{kind}", {"count": 0})["count"])

    def calls(self, command: str) -> int:
        """How often a client has sent a command, or a script has."""
        return int(self.ask("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def hearers(self, channel: str) -> int:
        """How many connections hear a channel here."""
        return int(self.ask("PUBSUB", "SHARDNUMSUB", b"telex:" + name_of(channel))[1])

    @contextmanager
    def overheard(self, channels: Iterable[str]) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        """What is published here meanwhile: the names of shard channels, and the messages."""
        with Redis(port=self.port, socket_timeout=READY_SECONDS) as client, client.pubsub() as subscriber:
            messages = subscriber.listen()
            for channel in channels:
                subscriber.ssubscribe(b"telex:" + name_of(channel))
                next(messages)
            yield ((message["channel"], message["data"]) for message in messages)

    def isolate(self) -> None:
        """Let it hear nothing more of the other nodes; clients, and its replicas, still reach it."""
        self._is_isolated = True
        self.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)

    def rejoin(self, others: Iterable[Node]) -> None:
        """End what :meth:`isolate` did, if it did."""
        if not self._is_isolated:
            return
        self._is_isolated = False
        self.ask("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -1)
        # On links that stayed open both sides wait for answers that were dropped.
        for node in others:
            node.ask("DEBUG", "CLUSTERLINK", "KILL", "TO", self.node_id)
            self.ask("DEBUG", "CLUSTERLINK", "KILL", "TO", node.node_id)


class Cluster:
    """Three nodes without replicas: when one is away, its third of the slots is."""

    def __init__(self, options: str = "") -> None:
        self.nodes = [Node(options) for _ in range(3)]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    def start(self) -> None:
        """Start, share out the slots, and wait until every node knows it."""
        for index, node in enumerate(self.nodes):
            node.start()
            # Else they begin with the same, and elections fail until they have found out.
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            node.ask("CLUSTER", "ADDSLOTSRANGE", index * SLOTS // 3, (index + 1) * SLOTS // 3 - 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        self.wait()

    def wait(self) -> None:
        """Return when all nodes agree that all slots are served."""
        poll(lambda: all(self._is_settled(node) for node in self.nodes))

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
        self.begin_move(channel, there)
        self.end_move(channel, there)

    def begin_move(self, channel: str, there: Node, count: int = 10) -> None:
        """Move ``count`` keys: the slot is on its way."""
        here, slot = self.owner(channel), key_slot(name_of(channel))
        there.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", here.node_id)
        here.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", there.node_id)
        self._move_keys(channel, there, count)

    def _move_keys(self, channel: str, there: Node, count: int) -> None:
        here = self.owner(channel)
        keys = here.ask("CLUSTER", "GETKEYSINSLOT", key_slot(name_of(channel)), count)
        if keys:
            here.ask("MIGRATE", "127.0.0.1", there.port, "", 0, 5000, "KEYS", *keys)

    def end_move(self, channel: str, there: Node) -> None:
        """Move the other keys, and let the slot arrive."""
        here, slot = self.owner(channel), key_slot(name_of(channel))
        while here.ask("CLUSTER", "COUNTKEYSINSLOT", slot):
            self._move_keys(channel, there, 10)
        # Each once: to tell a node again ends the subscriptions in that slot again.
        for node in (there, *[node for node in self.nodes if node is not there]):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", there.node_id)

    def remove(self) -> None:
        """End all of it."""
        for node in self.nodes:
            node.remove()


class Pair:
    """A primary and its replica, who may have changed places since the last test."""

    def __init__(self, first: Node, second: Node) -> None:
        self._nodes = (first, second)

    @property
    def primary(self) -> Node:
        """Who has the slots."""
        return next(node for node in self._nodes if node.is_primary)

    @property
    def replica(self) -> Node:
        """Who would take over."""
        return next(node for node in self._nodes if not node.is_primary)

    def agrees(self) -> bool:
        """Whether there is one of each, and the replica has all that the primary has."""
        states = [node.ask("INFO", "replication") for node in self._nodes]
        links = [state.get("master_link_status") for state in states]
        return sorted(map(str, links)) == ["None", "up"] and len({state["master_repl_offset"] for state in states}) == 1

    def part(self) -> None:
        """Let the replica hear no more of what is published."""
        replica = self.replica
        # It has to log in again, which it cannot: nobody has a password here.
        replica.ask("CONFIG", "SET", "masterauth", "wrong")
        replica.ask("CLIENT", "KILL", "TYPE", "master")

    def mend(self) -> None:
        """Undo whatever was done to either of them, and wait until they have the same."""
        for node in self._nodes:
            if not node.is_running:
                node.start()
            node.ask("CONFIG", "SET", "masterauth", "")
        poll(self.agrees)

    def swap(self, how: str = "") -> None:
        """Let the replica take over in order, or by ``TAKEOVER`` as if the primary was not there."""
        primary, replica = self.primary, self.replica
        replica.ask("CLUSTER", "FAILOVER", *how.split())
        poll(lambda: replica.is_primary and not primary.is_primary)


class ReplicatedCluster(Cluster):
    """A cluster whose first primary has a replica: together they are the pair.

    As by default, a part of the slots that is not served stops all of it. A node that is cut off takes no publishes.
    """

    def __init__(self) -> None:
        options = "--cluster-require-full-coverage yes --cluster-allow-pubsubshard-when-down no"
        options = f"{options} --repl-diskless-sync-delay 0 --enable-debug-command local"
        super().__init__(options)
        self._replica = Node(options)
        self.pair = Pair(self.nodes[0], self._replica)

    def start(self) -> None:
        """Start, as the others do, and let the replica join."""
        self._replica.start()
        super().start()
        first = self.nodes[0]
        first.ask("CLUSTER", "MEET", "127.0.0.1", self._replica.port, self._replica.bus)
        poll(lambda: first.node_id in self._replica.ask("CLUSTER", "NODES"))
        self._replica.ask("CLUSTER", "REPLICATE", first.node_id)
        self.mend()

    def mend(self) -> None:
        """Undo whatever was done to the pair, and wait until all nodes know it: before that nobody is elected."""
        self.pair.mend()
        self.rejoin()
        poll(lambda: all(map(self._knows_all, self._everyone)))
        self.wait()

    def rejoin(self) -> None:
        """Let nodes that were cut off hear the others again."""
        for node in self._everyone:
            node.rejoin(other for other in self._everyone if other is not node)

    @property
    def _everyone(self) -> tuple[Node, ...]:
        return (*self.nodes, self._replica)

    def _knows_all(self, node: Node) -> bool:
        lines = node.ask("CLUSTER", "NODES").splitlines()
        known = [line for line in lines if " connected" in line and "fail" not in line]
        replicas = [line for line in lines if "slave" in line and self.pair.primary.node_id in line]
        return (len(known), len(replicas)) == (len(self.nodes) + 1, 1)

    def remove(self) -> None:
        """End all of it."""
        super().remove()
        self._replica.remove()


def poll(condition: Callable[[], object]) -> None:
    """Return when ``condition`` holds of the servers, which tell it by no event."""
    end = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("the cluster did not settle")
        time.sleep(0.02)


def name_of(channel: str) -> bytes:
    """A name in the slot of a channel."""
    return b"{:%s}" % channel.encode()
