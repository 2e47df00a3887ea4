"""``python -m benchmarks``: measures the peers in turn, round by round, and prints a table of ratios."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import processes
from benchmarks.peers import ON_UVICORN, PEERS
from benchmarks.report import Results
from benchmarks.scenarios import SCENARIOS, Scenario

PARTS = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options, measures, writes."""
    options = parser().parse_args(arguments)
    server_core, load_core = processes.cores()
    if load_core is None:
        print("one core only: server and load share it, and the figures are worth little", file=sys.stderr)
    else:
        os.sched_setaffinity(0, {load_core})
    processes.raise_descriptor_limit()
    peers = options.peers if options.baseline in options.peers else [options.baseline, *options.peers]
    results = Results(options.baseline)
    for number in range(options.rounds):
        for name in options.scenarios:
            able = [peer for peer in peers if SCENARIOS[name].app in PEERS[peer].apps()]
            for peer, figure in measure(able, SCENARIOS[name], options.seconds, server_core).items():
                results.add(name, peer, figure)
                print(f"round {number + 1}  {name:12} {peer:16} {figure:10.2f}", file=sys.stderr)
    write(results, options.json, options.markdown)


def measure(peers: Sequence[str], scenario: Scenario, seconds: float, core: int | None = None) -> dict[str, float]:
    """One figure for each peer, from fresh servers that have their load in turn: the best of several short parts.

    What else the machine does only ever adds to a figure. Short parts escape it more often than a long one, and what
    lasts longer hits all peers alike. A server that waits for its turn takes nothing of the core.
    """
    best = dict.fromkeys(peers, float("inf"))
    with contextlib.ExitStack() as stack:
        servers = {peer: stack.enter_context(processes.serving(peer, scenario.app, core)) for peer in peers}
        for number in range(1 if scenario.once else PARTS + 1):
            for peer, server in servers.items():
                cost = scenario.drive(server, seconds / PARTS)
                # The first part is the warm-up, where there is a second.
                best[peer] = min(best[peer], cost) if number or scenario.once else best[peer]
    return best


def write(results: Results, json_file: Path | None, markdown_file: Path | None) -> None:
    """Prints the table, and keeps it where it was asked for."""
    table = results.as_markdown()
    print(table)
    if markdown_file is not None:
        markdown_file.write_text(table + "\n", "utf-8")
    if json_file is not None:
        json_file.write_text(json.dumps(results.as_json(), indent=2) + "\n", "utf-8")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    made.add_argument(
        "--peers", nargs="+", choices=PEERS, default=list(ON_UVICORN), metavar="PEER", help=", ".join(PEERS)
    )
    made.add_argument(
        "--scenarios",
        nargs="+",
        choices=SCENARIOS,
        default=list(SCENARIOS),
        metavar="SCENARIO",
        help=", ".join(SCENARIOS),
    )
    made.add_argument("--baseline", choices=PEERS, default="asgi", metavar="PEER", help="ratios are to this one (asgi)")
    made.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    made.add_argument("--seconds", type=float, default=1.6, help="of load for each figure (1.6)")
    made.add_argument("--json", type=Path, help="write all figures there")
    made.add_argument("--markdown", type=Path, help="write the table there")
    return made


if __name__ == "__main__":
    main()
