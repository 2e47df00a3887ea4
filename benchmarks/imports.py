"""``python -m benchmarks.imports``: how long an import takes, each in fresh processes, taken in turn; medians."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence

MODULES = ("telex", "starlette.applications", "litestar", "fastapi")
_CODE = "import time; a = time.perf_counter(); import {}; print(time.perf_counter() - a)"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of milliseconds."""
    options = argparse.ArgumentParser("python -m benchmarks.imports", description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("modules", nargs="*", default=MODULES)
    given = options.parse_args(arguments)
    for module in given.modules:
        milliseconds(module)  # writes byte code, fills the page cache
    times: dict[str, list[float]] = {module: [] for module in given.modules}
    for _ in range(given.rounds):
        for module in given.modules:
            times[module].append(milliseconds(module))
    first = statistics.median(times[given.modules[0]])
    print("| import | ms | |\n|---|---:|---:|")
    for module, taken in times.items():
        median = statistics.median(taken)
        print(f"| {module} | {median:.0f} | {median / first:.2f} × |")


def milliseconds(module: str) -> float:
    """One import in a fresh interpreter."""
    run = subprocess.run([sys.executable, "-c", _CODE.format(module)], capture_output=True, text=True, check=True)
    return float(run.stdout) * 1000


if __name__ == "__main__":
    main()
