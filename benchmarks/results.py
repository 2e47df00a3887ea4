"""The figures: kept as JSON, merged with those of an earlier run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.peers import PEERS
from benchmarks.scenarios import SCENARIOS


@dataclass
class Results:
    """What was measured: for each scenario and peer one figure a round.

    :param baseline: the peer that all ratios are to; ``None`` takes each peer's own.
    """

    baseline: str | None = None
    figures: dict[tuple[str, str], Sequence[float]] = field(default_factory=dict)

    def replace(self, scenario: str, figures: Mapping[str, Sequence[float]]) -> None:
        """Replaces the figures of these peers."""
        for peer, rounds in figures.items():
            self.figures[scenario, peer] = rounds

    def best(self, scenario: str, peer: str) -> float | None:
        """The smallest of all rounds: disturbances only add to a measurement."""
        return min(self.figures[scenario, peer]) if (scenario, peer) in self.figures else None

    def ratio(self, scenario: str, peer: str, base: str | None = None) -> float | None:
        """Times the baseline."""
        own = self.best(scenario, peer)
        other = self.best(scenario, base or self.baseline or PEERS[peer].baseline)
        return own / other if own is not None and other else None

    def spread(self) -> float:
        """How far the middle round is above the best, as a part of the best: how much the machine was disturbed."""
        several = [figures for figures in self.figures.values() if len(figures) > 1]
        return statistics.median(statistics.median(each) / min(each) - 1 for each in several) if several else 0.0

    def scenarios(self, group: str) -> Sequence[str]:
        """Those of a group that were measured."""
        measured = {scenario for scenario, _ in self.figures}
        return [name for name, scenario in SCENARIOS.items() if scenario.group == group and name in measured]

    def peers(self, scenarios: Sequence[str]) -> Sequence[str]:
        """Those that did one of the scenarios."""
        return [peer for peer in PEERS if any((scenario, peer) in self.figures for scenario in scenarios)]

    def save(self, path: Path) -> None:
        """Writes all figures, and what they were measured on."""
        rows = [
            {
                "scenario": scenario,
                "peer": peer,
                "unit": SCENARIOS[scenario].unit,
                "best": self.best(scenario, peer),
                "ratio": self.ratio(scenario, peer),
                "rounds": list(figures),
            }
            for (scenario, peer), figures in self.figures.items()
        ]
        content: dict[str, Any] = {"baseline": self.baseline, "machine": machine(), "results": rows}
        path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")

    def load(self, path: Path) -> None:
        """Reads the figures of an earlier run; none if there is no such file."""
        if not path.exists():
            return
        for row in json.loads(path.read_text("utf-8"))["results"]:
            if row["scenario"] in SCENARIOS and row["peer"] in PEERS:
                self.figures[row["scenario"], row["peer"]] = row["rounds"]
