"""The documentation builds strictly, where a warning is an error, and without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow

OFFLINE = """
import socket

def refuse(*_):
    raise OSError("the documentation must build without a network")

socket.socket.connect = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
import pytest
cli()
"""
"""mkdocs, where every connection fails."""


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OFFLINE, "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert "tutorial/first-steps/index.html" in pages
    assert "socket.start_stream" in pages["how-to/send-while-receiving/index.html"]
