"""Memory and processor time: limits for a process of ours, and what a process uses. Linux only: it reads /proc."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


def limit_memory(pid: int, mebibytes: int) -> None:
    """Sets the most private memory that a process, and what it starts from now on, may hold: more is a MemoryError."""
    size = mebibytes << 20
    resource.prlimit(pid, resource.RLIMIT_DATA, (size, size))


def run_limited(
    command: Sequence[str], *, mebibytes: int, timeout: float = 30, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end under a memory limit; both of its outputs are in ``stdout``."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, env=env
    ) as process:
        limit_memory(process.pid, mebibytes)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, output)


def rss(pid: int | str = "self") -> int:
    """The resident memory of one process in bytes."""
    return _status(pid, "VmRSS")


def peak_rss(pid: int | str = "self") -> int:
    """The most resident memory that one process ever had, in bytes."""
    return _status(pid, "VmHWM")


def tree(pid: int) -> Iterator[int]:
    """A process and everything below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from tree(int(child))


def rss_of_tree(pid: int) -> int:
    """The resident memory of a process and everything below it, in bytes. Shared pages count for each."""
    return sum(rss(one) for one in tree(pid))


def cpu_seconds(pid: int | None = None) -> float:
    """The processor time that one process has used, in seconds; without ``pid`` that of this process."""
    if pid is None:
        return time.process_time()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int | str, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise ProcessLookupError(f"process {pid} has no {key}: it has ended")
