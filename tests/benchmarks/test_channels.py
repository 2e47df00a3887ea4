"""The benchmark of channels runs, on the smallest scale, and its counts are right."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.channels import fanout, nodes
from benchmarks.channels.__main__ import started
from benchmarks.channels.cycles import run_cycles
from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks.channels", "--markdown", str(page), "--parts", "Two nodes"]
    done = subprocess.run(
        [*command, "--seconds", "0.2"], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    written = page.read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in written.splitlines() if line.startswith(("| Valkey", "| NATS"))]
    assert [row[0] for row in rows] == ["Valkey", "NATS"]
    for row in rows:
        published, delivered, dropped, missing = (int(cell.replace(",", "")) for cell in row[4:])
        assert published > 0
        assert dropped > 0
        assert delivered + dropped == published * 11
        assert missing == 0


def test_fan_out_is_measured_beside_the_others() -> None:
    figures = {4: fanout.measured(4, rounds=1, seconds=0.05, core=None)}
    assert set(figures[4]) == set(fanout.ROWS)
    assert all(0 < figure < 10_000 for figure in figures[4].values())
    assert fanout.table(figures).count("×") == len(fanout.BASES)


@pytest.mark.broker
def test_a_broker_that_dies_loses_nothing_in_silence() -> None:
    with started("NATS") as broker:
        losses = asyncio.run(nodes.run_losses(broker, 0.2, kills=1, kept=True))
    assert losses.published == losses.delivered > 0
    assert (losses.declared, losses.gaps, losses.silent) == (0, 0, 0)


def test_subscribing_and_leaving_leaves_nothing() -> None:
    left = asyncio.run(run_cycles("memory://", 500))
    assert (left.channels, left.subscribers, left.tasks) == (0, 0, 0)
    assert left.objects < 50


def test_silence_is_heard() -> None:
    """An event is lost in silence when it is missing without a gap."""
    taken = {1, 2, 3, 4, 5}
    assert nodes.undeclared([1, 2, 3, 4, 5], taken) == 0
    assert nodes.undeclared([1, 2, 4, 5], taken) == 1
    assert nodes.undeclared([1, 2, 3], taken) == 2
    assert nodes.undeclared([3, 4, 5], taken) == 2
    assert nodes.undeclared([1, None, 4, 5], taken) == 0
    assert nodes.undeclared([1, None, 4], taken) == 1
    assert nodes.undeclared([2, 1, 3, 5, 4], taken) == 0
    assert nodes.undeclared([1, 2, 4, 5], taken - {3}) == 0
