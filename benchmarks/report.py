"""The figures as Markdown: tables for the terminal, a page for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.machine import machine
from benchmarks.peers import PEERS
from benchmarks.results import Results
from benchmarks.scenarios import GROUPS, SCENARIOS, Scenario

COMMAND = "python -m benchmarks all --markdown docs/benchmarks.md --plots docs/"


@dataclass(frozen=True)
class Aim:
    """A figure that was asked for: one peer, at most so many times another; without one, at most so much."""

    work: str
    scenario: str
    peer: str
    most: float
    base: str | None = None

    def cells(self, results: Results) -> Sequence[str] | None:
        """Its row, if it was measured."""
        best = results.best(self.scenario, self.peer)
        if self.base is None:
            unit = SCENARIOS[self.scenario].unit
            return [self.work, f"{self.most:g} {unit}", f"{best:.1f} {unit}"] if best is not None else None
        ratio = results.ratio(self.scenario, self.peer, self.base)
        if ratio is None:
            return None
        return [self.work, f"{self.most:.2f} × {PEERS[self.base].title}", f"{ratio:.2f} ×"]


_OWN, _STOCK = "Telex server", "stock uvicorn"
AIMS = (
    Aim(f"Echo text, sync listener, {_OWN}", "text", "telex-sync-own", 1.10, "picows"),
    Aim(f"Echo text, async listener, {_OWN}", "text", "telex-async-own", 1.6, "picows"),
    Aim(f"Typed and validated JSON echo, sync listener, {_OWN}", "json", "telex-sync-own", 1.15, "picows"),
    Aim(f"16 messages in flight, sync listener, {_OWN}", "text-16", "telex-sync-own", 0.9, "picows"),
    Aim(f"Echo text, sync listener, {_STOCK}", "text", "telex-sync", 1.06, "asgi"),
    Aim(f"Echo text, async listener, {_STOCK}", "text", "telex-async", 1.06, "asgi"),
    Aim(f"Typed and validated JSON echo, sync listener, {_STOCK}", "json", "telex-sync", 1.06, "asgi"),
    Aim(f"16 messages in flight, sync listener, {_STOCK}", "text-16", "telex-sync", 1.06, "asgi"),
    Aim(f"Channels to 500 subscribers, a delivery, {_OWN}", "channels", "telex-async-own", 1.15, "picows"),
    Aim(f"Idle connection, {_OWN}", "idle", "telex-sync-own", 14),
)
"""The figures that were asked for."""


def tables(results: Results) -> str:
    """A table for each group that was measured, without a word."""
    return "\n\n".join(table(results, group) for group in GROUPS if results.scenarios(group))


def table(results: Results, group: str) -> str:
    """Peers down, scenarios across; the best figure and how many times the baseline it is."""
    names = results.scenarios(group)
    units = [SCENARIOS[name].unit for name in names]
    heads = [_head(SCENARIOS[name], len(set(units)) > 1) for name in names]
    rows = [[PEERS[peer].title, *(_cell(results, name, peer) for name in names)] for peer in results.peers(names)]
    return as_table(["" if len(set(units)) > 1 else units[0], *heads], rows)


def _head(scenario: Scenario, with_unit: bool) -> str:
    return f"{scenario.title} ({scenario.unit})" if with_unit else scenario.title


def page(results: Results, plots: Mapping[str, str]) -> str:
    """The page of the documentation; ``plots`` names a picture for each group that has one."""
    parts = ["# Benchmarks", _INTRODUCTION.format(command=COMMAND), "## What was asked for", _aims(results)]
    for group, explained in GROUPS.items():
        if results.scenarios(group):
            picture = [f"![{group}]({plots[group]})"] if group in plots else []
            parts += [f"## {group}", explained, *picture, table(results, group)]
    return "\n\n".join([*parts, "## How it was measured", _METHOD, legend(results), _machine()]) + "\n"


def legend(results: Results) -> str:
    """How to read the figures."""
    base = f"{PEERS[results.baseline].title}" if results.baseline else "the baseline"
    bases = "" if results.baseline else f": {PEERS['asgi'].title}, for what runs there, else {PEERS['picows'].title}"
    count = max(len(figures) for figures in results.figures.values())
    return (
        f"Smallest of up to {count} interleaved rounds; × is times {base}{bases}."
        f" A dash: it cannot do that. The middle round is {results.spread():.0%} above the smallest."
    )


def _aims(results: Results) -> str:
    rows = [cells for aim in AIMS if (cells := aim.cells(results))]
    return as_table(["Work", "At most", "Measured"], rows)


def _cell(results: Results, scenario: str, peer: str) -> str:
    best, ratio = results.best(scenario, peer), results.ratio(scenario, peer)
    if best is None:
        return "–"
    return f"{best:.2f}" if ratio is None else f"{best:.2f} ({ratio:.2f} ×)"


def as_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but its first column stand to the right."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _machine() -> str:
    return as_table(["Measured on", ""], [*machine().items()])


_INTRODUCTION = """\
What a message, a connection and an idle connection cost the server: Telex beside its peers. CPU time, not messages a
second: CPU time limits the connections of a machine, and does not depend on the rate of the load.

This page is written by one command, which anybody can run:

```console
$ pip install 'telex[bench]'
$ {command}
```

`--missing` goes on where it stopped, `--scenarios` and `--peers` choose, and without `all` a quick part is measured.
Node's `ws` takes part where npm has installed it: `npm install --prefix ~/.cache/telex-benchmarks ws`."""

_METHOD = """\
A figure is user and system time of the server's process tree by the kernel's clock, divided by the messages
(deliveries, connections) that were counted and found right in the meantime. The servers run on one core, the load
generator on another. All peers of a scenario are up at the same time and have their load in turn, in parts of about a
tenth of a second, of which the cheapest counts: other work of the machine only adds to a figure. Only with 1,000 and
more connections, and for idle ones, the peers come one after another. Every server has its default configuration,
without an access log; uvloop and httptools are used where possible. All peers do the same work: a typed echo is
decoded, validated and encoded, by msgspec by hand where there is no framework, by pydantic under FastAPI. The C program
is `benchmarks/floor/echo.c`: the kernel's part of its figure is in every other figure too."""
