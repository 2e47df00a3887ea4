"""What a WebSocket echo costs the machine at least: ours in C, built when it is first wanted."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path

from benchmarks.certificate import Certificate

SOURCE = Path(__file__).parent.parent / "floor" / "echo.c"
APPS = {"text": None}


def serve(app: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Becomes the program, which serves until it is killed."""
    listening.set_inheritable(True)
    program = built()
    os.execv(program, [str(program), str(listening.fileno())])  # noqa: S606


def built() -> Path:
    """The program: from the cache directory, where there is one for each version of its source."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telex-benchmarks"
    program = home / f"echo-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            made = Path(folder, "echo")
            subprocess.run(["cc", "-O2", "-o", str(made), str(SOURCE)], check=True)
            made.replace(program)
    return program
