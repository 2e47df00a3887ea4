"""Runs Autobahn's test suite against Telex's server: ``scripts/conformance [--full | --part NAME] [--app NAME]``.

Autobahn's cases are run by kosoku, which has them all and needs no Python 2. It lives in an environment of its own
(``.autobahn/venv``), because it is a tool and no dependency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.server.apps import ECHOES
from tests.server.process import ROOT, process

KOSOKU: Final = "kosoku==0.1.0"
HOME: Final = ROOT / ".autobahn"

_DEFLATE: Final = [f"12.{group}.{case}" for group in range(1, 6) for case in (1, 4, 11)] + [
    f"13.{group}.{case}" for group in range(1, 8) for case in (1, 4, 11)
]

PARTS: Final[Mapping[str, Sequence[str]]] = {
    "core": ["-x", "9.*", "-x", "12.*", "-x", "13.*"],
    "order": ["-i", "3.*", "-i", "4.*", "-i", "7.*"],
    "limits": ["-i", "9.*"],
    "deflate": [word for case in _DEFLATE for word in ("-i", case)],
    "full": [],
}
"""Which cases: all but limits and compression (247); of these, those in which an answer may come too late (54); limits
(54); some of compression (36); all (517)."""

SETTINGS: Final[Mapping[str, Any]] = {
    "max_message_size": 16 << 20,  # what cases 9.* send
    "ping_interval": None,  # a ping between the messages of a long case would count as a failure
    "deflate_min_size": 0,  # kosoku's compression cases take an uncompressed echo for text where bytes are expected
    "log_level": "warning",
}

_FINE: Final = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})


def tool() -> Path:
    """The path of kosoku's command, installed if it is missing."""
    command = HOME / "venv" / "bin" / "kosoku"
    if not command.exists():
        venv.create(HOME / "venv", with_pip=True)
        subprocess.run([command.with_name("pip"), "install", "--quiet", KOSOKU], check=True)
    return command


async def run(part: str, app: str = "frame") -> dict[str, str]:
    """The verdict of each case of ``part``, for the echo app of that name."""
    command, report = tool(), HOME / f"report-{part}-{app}"
    name = f"tests.server.apps:{ECHOES[app].__name__}"
    async with process(name, **SETTINGS) as server:
        suite = await asyncio.create_subprocess_exec(
            command, f"ws://127.0.0.1:{server.port}/", *PARTS[part], "-o", report,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await suite.wait()  # its status counts non-strict cases as failures: the report tells
        assert "Traceback" not in server.log(), server.log()
    (results,) = json.loads((report / "index.json").read_text()).values()
    return {case: verdict(result) for case, result in results.items()}


def verdict(result: Mapping[str, str]) -> str:
    """One word for a case: it is fine only if both what was said and how the connection closed are."""
    behaviour, close = result["behavior"], result["behaviorClose"]
    return behaviour if behaviour in _FINE and close in _FINE else "FAILED"


def described(results: Mapping[str, str]) -> str:
    """The counts, and every case that is not just OK."""
    counts = Counter(results.values())
    lines = [f"{len(results)} cases: " + ", ".join(f"{count} {word}" for word, count in counts.most_common())]
    lines += [f"  {word:13} {case}" for case, word in results.items() if word != "OK"]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/conformance", description=__doc__)
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="core, limits and deflate if not given")
    parser.add_argument("--full", action="store_true", help="all 517 cases, some minutes")
    parser.add_argument("--app", choices=sorted(ECHOES), default="frame", help="how the echo app talks to the server")
    options = parser.parse_args()
    failed = False
    for part in ["full"] if options.full else options.part or ["core", "limits", "deflate"]:
        results = asyncio.run(run(part, options.app))
        sys.stdout.write(f"{part}: {described(results)}\n")
        failed = failed or "FAILED" in results.values()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
