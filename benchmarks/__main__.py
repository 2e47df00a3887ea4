"""``python -m benchmarks``: measures the peers in turn and prints tables; ``all`` of it, or a quick part."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import measure, processes, report
from benchmarks.measure import Effort
from benchmarks.peers import ON_UVICORN, PEERS
from benchmarks.results import Results
from benchmarks.scenarios import QUICK, SCENARIOS


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the options, measures, writes."""
    options = parser().parse_args(arguments)
    everything = options.extent == "all"
    server_core, load_core = processes.cores()
    if load_core is None:
        print("one core only: server and load share it, and the figures are worth little", file=sys.stderr)
    else:
        os.sched_setaffinity(0, {load_core})
    processes.raise_descriptor_limit()
    default = Effort(2, 0.6) if everything else Effort(5, 1.6)
    effort = Effort(options.rounds or default.rounds, options.seconds or default.seconds, server_core)
    results = Results(options.baseline)
    file = options.json or (options.markdown.with_suffix(".json") if options.markdown and everything else None)
    if file is not None:
        results.load(file)
    peers = with_baselines(options.peers or (PEERS if everything else ON_UVICORN), options.baseline)
    for name in options.scenarios or (SCENARIOS if everything else QUICK):
        able = [peer for peer in peers if SCENARIOS[name].able(peer)]
        if options.missing and all((name, peer) in results.figures for peer in able):
            continue
        results.replace(name, measure.rounds(name, able, effort))
        if file is not None:
            results.save(file)
    write(results, options.markdown, options.plots)


def with_baselines(peers: Iterable[str], baseline: str | None) -> Sequence[str]:
    """The peers and those that they are compared with, in the order of the report."""
    wanted = {name for peer in peers for name in (peer, baseline or PEERS[peer].baseline)}
    return [peer for peer in PEERS if peer in wanted]


def write(results: Results, markdown: Path | None, folder: Path | None) -> None:
    """Prints the tables, and writes the page and the pictures where they were asked for."""
    print(report.tables(results))
    print(f"\n{report.legend(results)}")
    drawn: Mapping[str, str] = {}
    if folder is not None:
        from benchmarks.plots import draw

        drawn = draw(results, folder)
    if markdown is not None:
        beside = os.path.relpath(folder or ".", markdown.parent)
        pictures = {group: os.path.normpath(Path(beside, name)) for group, name in drawn.items()}
        markdown.write_text(report.page(results, pictures), "utf-8")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    made.add_argument("extent", nargs="?", choices=("quick", "all"), default="quick")
    made.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    made.add_argument("--scenarios", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help=", ".join(SCENARIOS))
    made.add_argument("--baseline", choices=PEERS, metavar="PEER", help="ratios are to this one, not to each one's own")
    made.add_argument("--rounds", type=int, help="interleaved rounds (5; all: 2)")
    made.add_argument("--seconds", type=float, help="of load for each figure (1.6; all: 0.6)")
    made.add_argument("--json", type=Path, help="keep all figures there, with those of an earlier run")
    made.add_argument("--missing", action="store_true", help="measure only what is not in that file yet")
    made.add_argument("--markdown", type=Path, help="write the page there; all: its figures beside it, as JSON")
    made.add_argument("--plots", type=Path, metavar="FOLDER", help="write pictures there")
    return made


if __name__ == "__main__":
    main()
