"""What the suite promises of itself: a leak is reported in the test that made it, and marks tell the truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demands import is_left_out

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.program

LEAK = """
import asyncio

async def test_that_leaks():
    reader, writer = await asyncio.open_connection("127.0.0.1", await serving())
    cycle = [writer]
    cycle.append(cycle)

async def serving():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    return server.sockets[0].getsockname()[1]

def test_that_comes_after_it():
    assert True
"""

UNMARKED = """
from tests.channels.brokers import Valkey

def test_that_starts_a_broker():
    Valkey().start()
"""

PROGRAM = """
import subprocess, sys

def test_that_starts_a_program():
    subprocess.run([sys.executable, "-c", ""])
"""


def outcome(test: str, folder: Path) -> str:
    (folder / "test_given.py").write_text(test)
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    return done.stdout


@pytest.mark.parametrize(
    ("marks", "lane", "is_left"),
    [
        ("pytest.mark.slow", "not slow and not broker", True),
        ("[pytest.mark.asyncio(loop_scope='module'), pytest.mark.broker]", "not slow and not broker", True),
        ("pytest.mark.browser", "not slow and not broker", False),
        ("pytest.mark.slower", "not slow", False),
        ("pytest.mark.slow", "not (slow and broker)", False),
        ("pytest.mark.slow", "broker or not slow", False),
        ("pytest.mark.slow", "", False),
    ],
)
def test_a_module_whose_marks_leave_it_out_is_not_imported(
    marks: str, lane: str, is_left: bool, tmp_path: Path
) -> None:
    module = tmp_path / "test_given.py"
    module.write_text(f"import pytest\n\npytestmark = {marks}\n")
    assert is_left_out(module, lane) == is_left


def test_an_unclosed_transport_fails_the_test_that_made_it(tmp_path: Path) -> None:
    report = outcome(LEAK, tmp_path)
    assert "::test_that_leaks" in report
    assert "unclosed" in report
    assert "::test_that_comes_after_it" not in report
    assert "1 error" in report


def test_a_test_that_starts_a_broker_without_the_mark_fails(tmp_path: Path) -> None:
    assert "needs @pytest.mark.broker" in outcome(UNMARKED, tmp_path)


def test_a_test_that_starts_a_program_without_the_mark_fails(tmp_path: Path) -> None:
    assert "needs @pytest.mark.program" in outcome(PROGRAM, tmp_path)
