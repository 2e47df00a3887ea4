"""The README's first app and its test, in an empty folder, by the README's commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.docs.pages import ROOT, blocks
from tests.support.programs import TELEX, program

pytestmark = pytest.mark.program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with the files of the README."""
    for block in blocks(ROOT / "README.md"):
        if block.language == "python":
            assert block.file is not None
            (tmp_path / Path(block.file).name).write_text(block.text)
    return tmp_path


def test_the_app_is_served(folder: Path) -> None:
    command = [TELEX, "run", "hello:app", "--app-dir", str(folder), "--port", "0"]
    with program(*command) as running, connect(running.url("/hello"), proxy=None) as client:
        client.send('{"name": "Ada"}')
        assert client.recv(timeout=5) == "Hello, Ada!"
        client.send('{"name": 5}')
        assert client.recv(timeout=5) == (ROOT / "examples/docs/hello_error.json").read_text().strip()


def test_the_test_passes(folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
