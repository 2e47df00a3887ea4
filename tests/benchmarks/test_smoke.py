"""The benchmarks run, on the smallest scale."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import certificate, processes
from benchmarks.hostile.__main__ import attacked, row
from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.watch import watched
from benchmarks.loads import Drive, Echo
from benchmarks.measure import Effort, side_by_side
from benchmarks.peers import ON_UVICORN, PEERS
from benchmarks.processes import Server, serving
from benchmarks.results import Results
from benchmarks.scenarios import GROUPS, ROUTES, SCENARIOS, Scenario

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One of the commands, which must succeed."""
    command = [sys.executable, "-m", *arguments]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished


def small(drive: Drive) -> Drive:
    """The same with a few connections."""
    return replace(drive, connections=min(drive.connections, 4))  # type: ignore[type-var]


def test_every_scenario_drives_telex() -> None:
    with contextlib.ExitStack() as stack:
        secret = stack.enter_context(certificate.made())
        servers = {
            (app, tls): stack.enter_context(serving(telex_with(app), app, certificate=secret if tls else None))
            for app, tls in {server_for(scenario) for scenario in SCENARIOS.values()}
        }
        for scenario in SCENARIOS.values():
            with small(scenario.drive)(servers[server_for(scenario)]) as part:
                assert part(0.02) >= 0


def server_for(scenario: Scenario) -> tuple[str, bool]:
    """The app, where that with the most routes will do for all, and whether it is served over TLS."""
    app = "routes-1000" if scenario.group == ROUTES else scenario.app
    return app, scenario.needs == "tls"


def telex_with(app: str) -> str:
    """A peer on Telex's own server that has this app."""
    return next(peer for peer in ("telex-sync-own", "telex-async-own") if PEERS[peer].can(app))


def test_every_peer_echoes() -> None:
    scenario = replace(SCENARIOS["text"], drive=Echo(2))
    installed = [name for name, peer in PEERS.items() if peer.can("text")]
    assert len(installed) >= len(PEERS) - 1  # all but Node's, which pip does not install
    figures = side_by_side(installed, scenario, Effort(1, 0.05))
    assert list(figures) == installed
    assert all(0 < figure < 10_000 for figure in figures.values())


def test_what_a_peer_cannot_do_is_left_out() -> None:
    for name, scenario in SCENARIOS.items():
        able = {peer for peer in PEERS if scenario.able(peer)}
        assert {"telex-sync-own", "telex-async-own"} & able, name
    assert not SCENARIOS["deflate"].able("picows")
    assert not SCENARIOS["tls"].able("c")
    assert SCENARIOS["tls"].able("picows")


def test_the_command_writes_a_page_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "page.json"
    common = ("benchmarks", "all", "--peers", "c", "--rounds", "1", "--seconds", "0.05", "--markdown", str(page))
    earlier = Results()
    earlier.replace("text", {"c": [4.0], "picows": [5.0]})
    earlier.save(figures)
    command = run(*common, "--scenarios", "text", "large", "--plots", str(tmp_path), "--missing")
    assert "large" in command.stderr
    assert "text" not in command.stderr
    rows = {(row["scenario"], row["peer"]): row for row in json.loads(figures.read_text("utf-8"))["results"]}
    assert set(rows) == {(scenario, peer) for scenario in ("text", "large") for peer in ("c", "picows")}
    assert rows["text", "c"]["ratio"] == 0.8
    assert rows["large", "picows"]["ratio"] == 1
    assert PEERS["c"].title in command.stdout
    written = page.read_text("utf-8")
    assert "![Messages](benchmarks-messages.svg)" in written
    assert "<svg" in (tmp_path / "benchmarks-messages.svg").read_text("utf-8")


def test_every_peer_on_uvicorn_does_the_work_of_the_microbenchmark() -> None:
    table = run("benchmarks.micro", "--messages", "20", "--rounds", "1").stdout
    assert table.count("\n| ") == 2 * (1 + len(ON_UVICORN))


def test_limits_are_measured() -> None:
    printed = run("benchmarks.limits", "--rounds", "1", "--count", "1000").stdout
    assert "a frame callback, message_limit, ns" in printed
    assert "an address, of 100,000, bytes" in printed


def test_imports_are_timed() -> None:
    assert "| telex |" in run("benchmarks.imports", "--rounds", "1", "telex").stdout


def test_every_attack_is_watched() -> None:
    processes.raise_descriptor_limit()
    with attacked(None) as server:
        for attack in ATTACKS:
            outcome = watched(server, attack, 0.1)
            assert all(count > 0 for what, count in outcome.counts.items() if what != "closed"), outcome
            assert 0 < outcome.during.median <= outcome.during.p99
            assert outcome.during.memory < 200 * 2**20
            assert len(row(attack, outcome)) == 11


def test_a_wrong_reply_is_noticed() -> None:
    wrong = Echo(2, request=b"hello", reply=b"jello")
    with serving("picows", "text") as server, pytest.raises(RuntimeError, match="jello"), wrong(server):
        pass


def test_cpu_time_is_that_of_the_process() -> None:
    own = Server(pid=os.getpid(), port=0)
    before, until = own.cpu_seconds(), time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert own.cpu_seconds() - before == pytest.approx(0.1, abs=0.05)


def test_the_smallest_round_counts_and_each_peer_has_its_baseline() -> None:
    results = Results()
    results.replace("text", {"asgi": [12.0, 10.0], "litestar": [15.0, 17.0], "picows": [5.0, 9.0], "aiohttp": [6.0]})
    assert results.ratio("text", "litestar") == 1.5
    assert results.ratio("text", "aiohttp") == 1.2
    assert Results("picows", results.figures).ratio("text", "asgi") == 2
    assert SCENARIOS["text"].group in GROUPS
