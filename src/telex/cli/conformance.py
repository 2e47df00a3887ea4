"""Runs ``telex conformance``, and prints a line for each scenario. A module of its own: it needs ``websockets``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from fnmatch import fnmatch

import click

from telex.conformance.runner import Result, run
from telex.conformance.scenarios import Scenario, load

__all__ = ("check_client", "chosen")


def chosen(patterns: Sequence[str]) -> list[Scenario]:
    """The scenarios whose names match one of ``patterns``; without patterns all."""
    return [each for each in load() if not patterns or any(fnmatch(each.name, pattern) for pattern in patterns)]


def check_client(command: Sequence[str], patterns: Sequence[str]) -> bool:
    """Run the scenarios against the client that ``command`` starts; returns whether it passes all."""
    results = asyncio.run(run(command, chosen(patterns), _report))
    passed = sum(not each.problem for each in results)
    click.echo(f"{passed} of {len(results)} scenarios passed")
    return 0 < passed == len(results)


def _report(result: Result) -> None:
    if not result.problem:
        click.echo(f"passed  {result.scenario.name}")
        return
    click.echo(f"failed  {result.scenario.name}: {result.scenario.shows}")
    click.echo(f"        {result.problem}")
