"""Programs of Debian, for tests that run what a page tells to install."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class DebianProgram:
    """A program that can run, and the environment that it needs."""

    path: str
    env: dict[str, str]


def find_program(name: str, packages: tuple[str, ...], folder: Path) -> DebianProgram | None:
    """The installed program, else that of the packages, unpacked into ``folder``; ``None`` where there is neither."""
    installed = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if installed is not None:
        return DebianProgram(installed, {})
    try:
        _run("apt-get", "download", "-qq", *packages, cwd=folder)
        for package in folder.glob("*.deb"):
            _run("dpkg-deb", "-x", str(package), str(folder), cwd=folder)
    except (OSError, subprocess.SubprocessError):
        return None
    found = DebianProgram(str(folder / "usr/sbin" / name), {"LD_LIBRARY_PATH": str(folder / LIBRARIES)})
    runs = subprocess.run([found.path, "-v"], env={**os.environ, **found.env}, capture_output=True, check=False)
    return found if runs.returncode == 0 else None


def _run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, capture_output=True, check=True, timeout=60)
