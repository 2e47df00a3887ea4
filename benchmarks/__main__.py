"""``python -m benchmarks``: measures the peers in turn, round by round, and prints a table of ratios."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import processes
from benchmarks.peers import ON_UVICORN, PEERS
from benchmarks.report import Results
from benchmarks.scenarios import SCENARIOS, Scenario


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
        for scenario in options.scenarios:
            for peer in peers:
                if SCENARIOS[scenario].app in PEERS[peer].apps():
                    figure = measure(peer, SCENARIOS[scenario], options.seconds, server_core)
                    results.add(scenario, peer, figure)
                    print(f"round {number + 1}  {scenario:12} {peer:16} {figure:10.2f}", file=sys.stderr)
    write(results, options.json, options.markdown)


def measure(peer: str, scenario: Scenario, seconds: float, core: int | None = None) -> float:
    """One figure: a fresh server, the scenario's load for so long, the server's cost for a unit of it."""
    with processes.serving(peer, scenario.app, core) as server:
        return scenario.drive(server, seconds)


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
    made.add_argument("--rounds", type=int, default=8, help="interleaved rounds (8)")
    made.add_argument("--seconds", type=float, default=1.0, help="of load for each figure, after a warm-up (1.0)")
    made.add_argument("--json", type=Path, help="write all figures there")
    made.add_argument("--markdown", type=Path, help="write the table there")
    return made


if __name__ == "__main__":
    main()
