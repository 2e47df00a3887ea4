"""The figures as a table for people and as JSON for machines."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.scenarios import SCENARIOS

PACKAGES = (
    "telex",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "picows",
    "litestar",
    "starlette",
    "fastapi",
    "msgspec",
)


@dataclass
class Results:
    """What was measured: for each scenario and peer one figure a round."""

    baseline: str
    rounds: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, scenario: str, peer: str, figure: float) -> None:
        self.rounds.setdefault((scenario, peer), []).append(figure)

    def best(self, scenario: str, peer: str) -> float | None:
        """The smallest of all rounds: what disturbs a measurement only ever adds to it."""
        return min(self.rounds[scenario, peer], default=None) if (scenario, peer) in self.rounds else None

    def ratio(self, scenario: str, peer: str) -> float | None:
        """Times the baseline."""
        own, base = self.best(scenario, peer), self.best(scenario, self.baseline)
        return own / base if own is not None and base else None

    def spread(self, scenario: str, peer: str) -> float:
        """How far the middle round is above the best, as a part of the best: how restless the machine was."""
        figures = self.rounds[scenario, peer]
        return statistics.median(figures) / min(figures) - 1

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "scenario": scenario,
                "peer": peer,
                "unit": SCENARIOS[scenario].unit,
                "best": self.best(scenario, peer),
                "ratio": self.ratio(scenario, peer),
                "rounds": figures,
            }
            for (scenario, peer), figures in self.rounds.items()
        ]
        return {"baseline": self.baseline, "machine": machine(), "results": rows}

    def as_markdown(self) -> str:
        """A table: peers down, scenarios across; the best figure and how many times the baseline it is."""
        scenarios = list(dict.fromkeys(scenario for scenario, _ in self.rounds))
        peers = list(dict.fromkeys(peer for _, peer in self.rounds))
        heads = [f"{SCENARIOS[name].title} ({SCENARIOS[name].unit})" for name in scenarios]
        lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
        for peer in peers:
            cells = [self._cell(scenario, peer) for scenario in scenarios]
            lines.append(f"| {PEERS[peer].title} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, "", self._legend()])

    def _cell(self, scenario: str, peer: str) -> str:
        best, ratio = self.best(scenario, peer), self.ratio(scenario, peer)
        if best is None:
            return "–"
        return f"{best:.2f}" if ratio is None else f"{best:.2f} ({ratio:.2f} ×)"

    def _legend(self) -> str:
        count = max(len(figures) for figures in self.rounds.values())
        spread = statistics.median(self.spread(*key) for key in self.rounds)
        described = ", ".join(f"{name} {value}" for name, value in machine().items())
        baseline = PEERS[self.baseline].title
        return (
            f"Smallest of {count} interleaved rounds, the server alone on one core; × is times {baseline}."
            f" The middle round is {spread:.0%} above the smallest.\n\n{described}."
        )


def machine() -> Mapping[str, str]:
    """What the figures were measured on."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
