"""Node's ``ws`` package, with ``JSON.parse`` for the typed app; measured where it is installed (see ``INSTALL``)."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from benchmarks.certificate import Certificate

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telex-benchmarks"
INSTALL = f"npm install --prefix {HOME} ws"
PROGRAM = Path(__file__).with_suffix(".js")
NODE = shutil.which("node")
APPS: Mapping[str, None] = {"text": None, "json": None} if NODE and (HOME / "node_modules" / "ws").is_dir() else {}


def serve(app: str, listening: socket.socket, certificate: Certificate | None) -> None:
    """Becomes Node, which serves until it is killed."""
    listening.set_inheritable(True)
    environment = {**os.environ, "NODE_PATH": str(HOME / "node_modules")}
    os.execve(str(NODE), [str(NODE), str(PROGRAM), app, str(listening.fileno())], environment)  # noqa: S606
