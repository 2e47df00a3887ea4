"""What the figures were measured on."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path

PACKAGES = (
    "telex",
    "picows",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "msgspec",
    "litestar",
    "starlette",
    "fastapi",
    "pydantic",
    "aiohttp",
    "sanic",
    "granian",
)


def machine() -> Mapping[str, str]:
    """The machine, the date and the versions."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "Python": platform.python_version(),
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
