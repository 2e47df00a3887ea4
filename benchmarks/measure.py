"""Measures the peers in turn, round by round, and keeps the figures."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import certificate, processes
from benchmarks.certificate import Certificate
from benchmarks.loads import Part
from benchmarks.scenarios import SCENARIOS, Scenario

PARTS = 8


@dataclass(frozen=True)
class Effort:
    """How long each figure takes: rounds, seconds of load in each, and the core that the servers are on."""

    rounds: int
    seconds: float
    core: int | None = None


def rounds(name: str, peers: Sequence[str], effort: Effort) -> Mapping[str, Sequence[float]]:
    """The figures of one scenario, one for each round, by peer."""
    scenario = SCENARIOS[name]
    figures: dict[str, list[float]] = {peer: [] for peer in peers}
    for number in range(min(effort.rounds, scenario.most_rounds)):
        began = time.monotonic()
        for peer, figure in one_round(peers, scenario, effort).items():
            figures[peer].append(figure)
            print(f"round {number + 1}  {name:18} {peer:20} {figure:10.2f}", file=sys.stderr)
        print(f"round {number + 1}  {name:18} took {time.monotonic() - began:.0f} s", file=sys.stderr)
    return figures


def one_round(peers: Sequence[str], scenario: Scenario, effort: Effort) -> Mapping[str, float]:
    """One figure for each peer, from fresh servers."""
    if not scenario.alone:
        return side_by_side(peers, scenario, effort)
    return {peer: side_by_side([peer], scenario, effort)[peer] for peer in peers}


def side_by_side(peers: Sequence[str], scenario: Scenario, effort: Effort) -> Mapping[str, float]:
    """One figure for each peer, whose servers have their load in turn: the best of several short parts.

    What else the machine does only ever adds to a figure. Short parts escape it more often than a long one, and what
    lasts longer hits all peers alike. A server that waits for its turn takes nothing of the core.
    """
    best = dict.fromkeys(peers, float("inf"))
    with contextlib.ExitStack() as stack:
        secret = stack.enter_context(certificate.made()) if scenario.needs == "tls" else None
        parts = opened(stack, peers, scenario, effort.core, secret)
        for number in range(1 if scenario.once else PARTS + 1):
            for peer, part in parts.items():
                cost = part(effort.seconds / PARTS)
                # The first part is the warm-up, where there is a second.
                best[peer] = min(best[peer], cost) if number or scenario.once else best[peer]
    return best


def opened(
    stack: contextlib.ExitStack,
    peers: Sequence[str],
    scenario: Scenario,
    core: int | None,
    secret: Certificate | None,
) -> Mapping[str, Part]:
    """The servers, started all at once, and what is opened on each."""
    servers = {peer: stack.enter_context(processes.serving(peer, scenario.app, core, secret)) for peer in peers}
    return {peer: stack.enter_context(scenario.drive(server)) for peer, server in servers.items()}
