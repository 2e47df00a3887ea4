"""The targets that are guided by coverage, for a minute each."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.process import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.parametrize("target", ["frames", "handshakes", "telex.v1"])
def test_a_minute_of_guided_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    # One seed, so that a failure can be seen again; by hand, run it without.
    options = ["-seed=1", "-max_total_time=60", "-len_control=0"]
    command = [sys.executable, "-m", "tests.server.fuzz.target", target, *options]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
