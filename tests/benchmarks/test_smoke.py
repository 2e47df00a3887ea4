"""The benchmarks run, on the smallest scale: a harness that nobody runs stops being true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers import ON_UVICORN, PEERS
from benchmarks.processes import Server, raise_descriptor_limit, serving
from benchmarks.report import Results
from benchmarks.scenarios import SCENARIOS, Echo
from benchmarks.wire import client_frame, server_frame

ROOT = Path(__file__).parent.parent.parent
APPS = sorted({scenario.app for scenario in SCENARIOS.values()})


def run(*arguments: str) -> str:
    """The output of one of the commands."""
    command = [sys.executable, "-m", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("app", APPS)
def test_every_scenario_drives_telex(app: str) -> None:
    raise_descriptor_limit()
    with serving("telex-sync", app) as server:
        for scenario in SCENARIOS.values():
            if scenario.app == app:
                assert scenario.drive(server, 0.05) > 0


def test_the_command_writes_ratios(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    options = ("--rounds", "1", "--seconds", "0.05", "--json", str(written))
    table = run("benchmarks", "--peers", "picows", "--scenarios", "text", "json", *options)
    rows = {(row["scenario"], row["peer"]): row for row in json.loads(written.read_text())["results"]}
    assert set(rows) == {(scenario, peer) for scenario in ("text", "json") for peer in ("asgi", "picows")}
    assert rows["text", "asgi"]["ratio"] == 1
    assert 0 < rows["text", "picows"]["ratio"] < 1
    assert PEERS["picows"].title in table


def test_every_peer_on_uvicorn_does_the_work_of_the_microbenchmark() -> None:
    table = run("benchmarks.micro", "--messages", "20", "--rounds", "1")
    assert table.count("\n| ") == 2 * (1 + len(ON_UVICORN))


def test_imports_are_timed() -> None:
    assert "| telex |" in run("benchmarks.imports", "--rounds", "1", "telex")


def test_a_wrong_reply_is_noticed() -> None:
    wrong = Echo(2, 1, client_frame(b"hello"), server_frame(b"jello"))
    with serving("asgi", "text") as server, pytest.raises(RuntimeError, match="jello"):
        wrong(server, 0.05)


def test_cpu_time_is_that_of_the_process() -> None:
    own = Server(pid=os.getpid(), port=0)
    before, until = own.cpu_seconds(), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert own.cpu_seconds() - before == pytest.approx(0.1, abs=0.05)


def test_the_smallest_round_counts() -> None:
    results = Results("asgi")
    for peer, figures in {"asgi": (12.0, 10.0), "picows": (5.0, 9.0)}.items():
        for figure in figures:
            results.add("text", peer, figure)
    assert results.ratio("text", "picows") == 0.5
    assert "5.00 (0.50 ×)" in results.as_markdown()
