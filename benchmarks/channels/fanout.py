"""Fan-out within one process: what a delivery costs the server."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.loads import FanOut
from benchmarks.measure import Effort, one_round
from benchmarks.peers import PEERS
from benchmarks.report import as_table
from benchmarks.scenarios import SCENARIOS

ROWS: Mapping[str, str] = {
    "picows": "a loop over bare picows transports",
    "asgi-own": "a raw ASGI send loop, Telex server",
    "telex-sync-own": "Telex's channels, Telex server",
    "asgi": "a raw ASGI send loop, uvicorn",
    "telex-sync": "Telex's channels, uvicorn",
    "litestar": "Litestar's channels, uvicorn",
}
BASES = {"telex-sync-own": "picows", "telex-sync": "asgi", "litestar": "asgi"}
"""What each is a multiple of."""
AT_ONCE = 1000
"""More subscribers than that, and the peers come one after another: sockets are not endless."""


def measured(subscribers: int, rounds: int, seconds: float, core: int | None) -> Mapping[str, float]:
    """Microseconds a delivery by peer: the smallest of the rounds, in which the peers take turns."""
    scenario = replace(SCENARIOS["channels"], drive=FanOut(subscribers), alone=subscribers > AT_ONCE)
    peers = [peer for peer in ROWS if PEERS[peer].can(scenario.app)]
    best = dict.fromkeys(peers, float("inf"))
    for number in range(rounds):
        for peer, figure in one_round(peers, scenario, Effort(1, seconds, core)).items():
            best[peer] = min(best[peer], figure)
            print(f"fan-out to {subscribers}, round {number + 1}: {peer} {figure:.2f}", file=sys.stderr)
    return best


def table(figures: Mapping[int, Mapping[str, float]]) -> str:
    """Peers down, numbers of subscribers across."""
    heads = ["µs CPU a delivery", *(f"{count:,} subscribers" for count in figures)]
    return as_table(heads, [[title, *_cells(peer, figures)] for peer, title in ROWS.items()])


def _cells(peer: str, figures: Mapping[int, Mapping[str, float]]) -> Sequence[str]:
    base = BASES.get(peer)
    return [
        f"{column[peer]:.2f}" + (f" ({column[peer] / column[base]:.2f} × {_short(base)})" if base else "")
        for column in figures.values()
    ]


def _short(peer: str) -> str:
    return {"picows": "picows", "asgi": "the loop"}[peer]
