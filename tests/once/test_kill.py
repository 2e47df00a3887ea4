"""A node is killed at any point of a call with a key: what ran, what was committed and what was answered agree.

The three promises of ``docs/how-to/calls-that-run-once.md`` as a model: a store alone runs a call at most once, or at
least once; with the key in the handler's own transaction its effect happens once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import psycopg
import pytest
from redis import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from examples.docs.orders_once import TABLE
from tests.channels.brokers import Postgres, Valkey
from tests.once.apps import a_key
from tests.once.node import POINTS
from tests.support.programs import ROOT

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.broker]

POLICIES: Final = ("refuse", "run", "keyed")
UNKNOWN: Final = "outcome_unknown"


class Nodes:
    """The brokers, and nodes that run one after another."""

    def __init__(self, database: str, redis: str) -> None:
        self.database = database
        self._redis = redis
        environment = os.environ | {"DATABASE_URL": database, "REDIS_URL": redis}
        self._forks = subprocess.Popen(
            [sys.executable, "-m", "tests.once.node"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        self._pid = 0

    def start(self, policy: str, point: str) -> int:
        """Start a node that dies at ``point``; returns its port. The node before is killed."""
        self.kill()
        assert self._forks.stdin is not None
        assert self._forks.stdout is not None
        self._forks.stdin.write(f"{policy} {point}\n")
        self._forks.stdin.flush()
        port, self._pid = map(int, self._forks.stdout.readline().split())
        return port

    def forget(self) -> None:
        """Let Redis lose its data."""
        with Redis.from_url(self._redis) as redis:
            redis.flushall()

    def kill(self) -> None:
        """Kill the node, if it lives."""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._pid = 0

    def close(self) -> None:
        """End everything."""
        self.kill()
        self._forks.kill()
        self._forks.communicate()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Real brokers, and a process that forks nodes."""
    with contextlib.ExitStack() as stack:
        brokers = (Postgres(), Valkey())
        for broker in brokers:
            stack.callback(broker.remove)
            broker.start()
        with psycopg.connect(brokers[0].url, autocommit=True) as connection:
            connection.execute(TABLE)
            connection.execute("CREATE TABLE runs (article text)")
        found = Nodes(*(broker.url for broker in brokers))
        stack.callback(found.close)
        yield found


@dataclass
class Seen:
    """What came of one call: what the model says must come, or what came."""

    runs: int = 0
    effects: int = 0
    answers: list[str] = field(default_factory=list)
    """Of each attempt: ``""`` where the node died, the number of the order, or why there is none."""


def expected(policy: str, points: Sequence[str]) -> Seen:
    """The promise: what each attempt comes to; a number is that of the effect, from 1."""
    seen, is_claimed, kept = Seen(), False, 0
    for point in points:
        if point == "before claim" or (point == "after claim" and (kept or (is_claimed and policy == "refuse"))):
            seen.answers.append("")
        elif kept:
            seen.answers.append(str(kept))
        elif is_claimed and policy == "refuse":
            seen.answers.append(UNKNOWN)
        else:
            is_claimed = True
            reached = POINTS.index(point) if point else len(POINTS)
            seen.runs += reached >= POINTS.index("before effect")
            if reached >= POINTS.index("after commit") and (policy != "keyed" or not seen.effects):
                seen.effects += 1
            if reached >= POINTS.index("after keep"):
                kept = seen.effects
            seen.answers.append("" if point else str(kept))
    return seen


async def attempt(port: int, key: str, article: str) -> str:
    """One call: the number of the order, the reason of an error, or ``""`` if the node died."""
    try:
        async with connect(
            f"ws://127.0.0.1:{port}/orders", subprotocols=[Subprotocol("telex.v1")], proxy=None, open_timeout=30
        ) as client:
            await client.recv()
            call = {"type": "call", "id": 1, "key": key, "data": {"article": article}}
            await client.send(msgspec.json.encode(call).decode())
            async with asyncio.timeout(60):
                frame: Any = msgspec.json.decode(await client.recv())
    except (WebSocketException, OSError):
        return ""
    if frame["type"] == "reply":
        return str(frame["data"]["number"])
    return str(frame["error"].get("data", {}).get("reason") or frame["error"]["code"])


def count(nodes: Nodes, article: str, answers: list[str]) -> Seen:
    """What is in the database, with the numbers of the orders counted from 1."""
    with psycopg.connect(nodes.database, autocommit=True) as connection:
        rows = connection.execute("SELECT number FROM orders WHERE article = %s ORDER BY number", (article,)).fetchall()
        ran = connection.execute("SELECT count(*) FROM runs WHERE article = %s", (article,)).fetchone()
    numbers = {str(row[0]): str(place) for place, row in enumerate(rows, 1)}
    assert ran is not None
    return Seen(ran[0], len(rows), [numbers.get(each, each) for each in answers])


async def tried(nodes: Nodes, policy: str, points: Sequence[str]) -> Seen:
    """Make one call; for each point on a node that is killed there."""
    key = article = a_key()
    answers = [await attempt(nodes.start(policy, point), key, article) for point in points]
    return count(nodes, article, answers)


def agree(policy: str, seen: Seen) -> None:
    """What holds wherever a node was killed."""
    numbers = {each for each in seen.answers if each.isdecimal()}
    if policy == "keyed":
        assert seen.effects == 1
    if policy == "refuse":
        assert seen.runs <= 1
        assert seen.effects <= 1
    assert len(numbers) <= 1
    if numbers:
        assert seen.effects >= 1
    if policy != "refuse":
        assert seen.answers[-1].isdecimal()


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_node_killed_at_a_point(nodes: Nodes, policy: str) -> None:
    sequence = ("after commit", "after keep", "")
    seen = await tried(nodes, policy, sequence)
    assert seen == expected(policy, sequence)
    agree(policy, seen)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", POLICIES)
async def test_nodes_killed_at_sequences_of_points(nodes: Nodes, policy: str) -> None:
    total: Counter[str] = Counter()
    sequences = list(itertools.product(POINTS, repeat=2))
    for points in sequences if policy == "keyed" else random.Random(policy).sample(sequences, 12):
        sequence = (*points, "")
        seen = await tried(nodes, policy, sequence)
        assert seen == expected(policy, sequence), (policy, sequence)
        agree(policy, seen)
        total += Counter(calls=1, runs=seen.runs, effects=seen.effects, answered=seen.answers[-1].isdecimal())
    sys.stdout.write(f"{policy}, killed at points: {dict(total)}\n")


async def test_the_example_places_one_order_for_each_key(nodes: Nodes) -> None:
    port, key, article = nodes.start("example", ""), a_key(), a_key()
    answers = [await attempt(port, each, article) for each in (key, key, a_key())]
    assert count(nodes, article, answers) == Seen(0, 2, ["1", "1", "2"])
    nodes.forget()
    assert await attempt(port, key, article) == answers[0]  # the table remembers it
    nodes.forget()
    assert await attempt(port, key, a_key()) == "key_reused"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", POLICIES)
async def test_nodes_killed_at_any_time(nodes: Nodes, policy: str) -> None:
    total: Counter[str] = Counter()
    times = random.Random(policy)
    for _ in range(20):
        key = article = a_key()
        answers: list[str] = []
        for _ in range(2):
            port = nodes.start(policy, "")
            await attempt(port, a_key(), "warm")
            async with asyncio.TaskGroup() as group:
                call = group.create_task(attempt(port, key, article))
                await asyncio.sleep(times.uniform(0, 0.03))
                nodes.kill()
            answers.append(call.result())
        answers.append(await attempt(nodes.start(policy, ""), key, article))
        seen = count(nodes, article, answers)
        agree(policy, seen)
        total += Counter(
            calls=1,
            runs=seen.runs,
            effects=seen.effects,
            answered=seen.answers[-1].isdecimal(),
            cut=seen.answers[:2].count(""),
        )
    sys.stdout.write(f"{policy}, killed at any time: {dict(total)}\n")
