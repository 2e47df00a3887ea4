"""``python -m benchmarks.hostile``: attacks ``telex run`` in five ways; prints its memory and a guest's latency."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import processes
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.watch import Outcome, Phase, watched
from benchmarks.machine import machine
from benchmarks.processes import Server
from benchmarks.report import as_table

HANDSHAKE_TIMEOUT = 2
_HEADS = ("Attack", "What it did", "Memory, MiB: before", "most during", "after", "p50, ms: before", "during", "after")
_MORE_HEADS = ("p99, ms: before", "during", "after")
_TELEX = "from telex.cli.main import main; main()"
_EXPLANATION = f"""\
Each attack has a fresh `telex run` with its default limits (but a handshake timeout of {HANDSHAKE_TIMEOUT} s, to see it
at work), alone on one core. The attacker, at the lowest priority, and a client that means well, which echoes a message
every 5 ms, share the other core. Memory is what the server's processes have resident."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Attacks and prints."""
    options = argparse.ArgumentParser("python -m benchmarks.hostile", description=__doc__)
    options.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="ATTACK")
    options.add_argument("--seconds", type=float, default=5, help="of each attack, and before and after it (5)")
    options.add_argument("--markdown", type=Path, help="write the table there")
    given = options.parse_args(arguments)
    server_core, load_core = processes.cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    rows = []
    for attack in given.attacks:
        with attacked(server_core) as server:
            rows.append(row(attack, watched(server, attack, given.seconds, load_core)))
    table = as_table([*_HEADS, *_MORE_HEADS], rows)
    print(table)
    if given.markdown is not None:
        text = ["# Hostile clients", _EXPLANATION, table, as_table(["Measured on", ""], [*machine().items()])]
        given.markdown.write_text("\n\n".join(text) + "\n", "utf-8")


@contextlib.contextmanager
def attacked(core: int | None) -> Iterator[Server]:
    """``telex run`` on a free port."""
    with processes.listening() as listener:
        options = ["--fd", str(listener.fileno()), "--no-access-log", "--log-level", "error"]
        command = ["-c", _TELEX, "run", "benchmarks.hostile.app:app", *options]
        limits = {"TELEX_HANDSHAKE_TIMEOUT": str(HANDSHAKE_TIMEOUT)}
        with processes.running(command, listener, environment=limits) as server:
            if core is not None:
                os.sched_setaffinity(server.pid, {core})
            yield server


def row(attack: str, outcome: Outcome) -> Sequence[str]:
    """What there is to say of one attack."""
    phases: Sequence[Phase] = (outcome.before, outcome.during, outcome.after)
    return [
        attack.replace("-", " "),
        ", ".join(f"{count:,} {what}" for what, count in outcome.counts.items()),
        *(f"{phase.memory / 2**20:.1f}" for phase in phases),
        *(f"{phase.median * 1000:.2f}" for phase in phases),
        *(f"{phase.p99 * 1000:.2f}" for phase in phases),
    ]


if __name__ == "__main__":
    main()
