"""Measures channels and prints tables; ``--markdown FILE`` writes the page of the documentation."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processes
from benchmarks.channels import cycles, fanout, nodes
from benchmarks.machine import machine
from benchmarks.report import as_table
from tests.channels.brokers import Broker, Nats, Postgres, Valkey

BROKERS: Mapping[str, type[Broker]] = {"Valkey": Valkey, "NATS": Nats, "PostgreSQL": Postgres}
READERS = 10
RATE = 500.0
"""Publishes a second for the latency."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options, measures, writes."""
    options = parser().parse_args(arguments)
    logging.getLogger("telex.channels").setLevel(logging.CRITICAL)
    processes.raise_descriptor_limit()
    sections = {name: SECTIONS[name](options) for name in options.parts}
    text = "\n\n".join(f"## {name}\n\n{section}" for name, section in sections.items())
    print(text)
    if options.markdown is not None:
        about = as_table(["Measured on", ""], [*machine().items()])
        options.markdown.write_text(f"{_HEAD}\n\n{text}\n\n## The machine\n\n{about}\n", "utf-8")


def fan_out(options: argparse.Namespace) -> str:
    """The servers on one core, the load on the other."""
    everywhere = os.sched_getaffinity(0)
    core, load = processes.cores()
    if load is not None:
        os.sched_setaffinity(0, {load})
    try:
        figures = {
            count: fanout.measured(count, options.rounds, options.seconds, core) for count in options.subscribers
        }
    finally:
        os.sched_setaffinity(0, everywhere)
    return fanout.table(figures)


def two_nodes(options: argparse.Namespace) -> str:
    """Rate, latency and counts over each broker."""
    rows = []
    for name in BROKERS:
        with started(name) as broker:
            pace = asyncio.run(nodes.run_pace(broker.url, options.seconds, READERS, RATE))
        counts = [f"{each:,}" for each in (pace.published, pace.delivered, pace.dropped, pace.missing)]
        rows.append([name, f"{pace.rate:,.0f}", f"{pace.p50:.2f} ms", f"{pace.p99:.2f} ms", *counts])
        print(f"two nodes: {rows[-1]}", file=sys.stderr)
    heads = ["broker", "deliveries/s", "p50", "p99", "published", "delivered", "dropped by policy", "missing"]
    return f"{_NODES}\n\n{as_table(heads, rows)}"


def killed(options: argparse.Namespace) -> str:
    """What a dying broker loses."""
    rows = []
    for name in BROKERS:
        for kept in (True, False):
            with started(name) as broker:
                losses = asyncio.run(nodes.run_losses(broker, options.seconds, options.kills, kept))
            counts = (losses.kills, losses.published, losses.delivered, losses.recovered, losses.declared)
            label = f"{name}, {'history' if kept else 'live only'}"
            rows.append([label, *(f"{each:,}" for each in (*counts, losses.gaps, losses.silent))])
            print(f"killed: {rows[-1]}", file=sys.stderr)
    heads = [
        "broker",
        "kills",
        "published",
        "delivered",
        "of them replayed",
        "declared lost",
        "gaps",
        "lost in silence",
    ]
    return f"{_KILLED}\n\n{as_table(heads, rows)}"


def left_over(options: argparse.Namespace) -> str:
    """What subscriptions leave behind."""
    rows = [_cycle_row("memory", "memory://", options.cycles)]
    for name in BROKERS:
        with started(name) as broker:
            rows.append(_cycle_row(name, broker.url, options.cycles))
    return as_table(["left after", "cycles", "channels", "subscribers", "tasks", "objects", "KiB"], rows)


def _cycle_row(name: str, url: str, count: int) -> Sequence[str]:
    left = asyncio.run(cycles.run_cycles(url, count))
    figures = (left.cycles, left.channels, left.subscribers, left.tasks, left.objects, left.kibibytes)
    return [name, *(f"{each:,}" for each in figures)]


@contextmanager
def started(name: str) -> Iterator[Broker]:
    """A broker of its own."""
    broker = BROKERS[name]()
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


SECTIONS = {
    "Fan-out in one process": fan_out,
    "Two nodes": two_nodes,
    "A broker killed under load": killed,
    "Subscribing and leaving": left_over,
}

_HEAD = """\
# Benchmarks of channels

This page is written by one command, which starts the brokers itself:

```console
$ python -m benchmarks.channels --markdown docs/benchmarks-channels.md
```"""
_NODES = f"""\
One process publishes, another has {READERS} readers and a slow one with a small queue that drops the oldest; nothing
is kept. The rate is of the {READERS}, flat out, with publisher, reader and broker sharing the machine; the latency,
from before the publish to the reader, is at {RATE:.0f} publishes a second. Missing is what was neither delivered nor
dropped."""
_KILLED = """\
The broker is killed and started again while one process publishes and another reads. Published is what the broker has
confirmed. Lost in silence must be 0: an event that is missing where no gap stands in the stream."""


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser("python -m benchmarks.channels", description=__doc__)
    made.add_argument("--parts", nargs="+", choices=SECTIONS, default=[*SECTIONS], metavar="PART", help="titles")
    made.add_argument("--subscribers", nargs="+", type=int, default=[500, 5000])
    made.add_argument("--rounds", type=int, default=3, help="of the fan-out")
    made.add_argument("--seconds", type=float, default=2.0, help="of load for each figure")
    made.add_argument("--kills", type=int, default=3)
    made.add_argument("--cycles", type=int, default=10_000)
    made.add_argument("--markdown", type=Path, help="write the page there")
    return made


if __name__ == "__main__":
    main()
