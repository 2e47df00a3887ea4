"""A client that means well: what it waits for its replies, and how much memory the server has meanwhile."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.messages import TEXT
from benchmarks.processes import ROOT, Server
from benchmarks.wire import Connection, client_frame, server_frame

_PAUSE = 0.005
_SETTLING = 1.0
_LIMIT = 60.0


@dataclass(frozen=True)
class Phase:
    """What was seen in one stretch of time: seconds from request to reply, and the most memory in bytes."""

    median: float
    p99: float
    memory: int


@dataclass(frozen=True)
class Outcome:
    """One attack: the stretches before, during and after it, and what the attacker counted."""

    before: Phase
    during: Phase
    after: Phase
    counts: Mapping[str, int]


def watched(server: Server, attack: str, seconds: float, core: int | None = None) -> Outcome:
    """Attacks a server, beside a client that sends a message every few milliseconds and must have each reply."""
    guest = Connection(server.port)
    guest.shake_hands()
    deadline = _after(seconds)
    before = watch(server, guest, lambda: not deadline())
    command = ["-m", "benchmarks.hostile.attacks", attack, str(server.port), str(seconds), str(core)]
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as attacker:
        during = watch(server, guest, lambda: attacker.poll() is None)
        printed, _ = attacker.communicate()
    if attacker.returncode:
        raise RuntimeError(f"the attacker ended with {attacker.returncode}")
    time.sleep(min(_SETTLING, seconds))
    deadline = _after(seconds)
    after = watch(server, guest, lambda: not deadline())
    guest.close()
    return Outcome(before, during, after, json.loads(printed))


def watch(server: Server, guest: Connection, going_on: Callable[[], bool]) -> Phase:
    """Sends and waits as long as it shall."""
    request, reply = client_frame(TEXT), server_frame(TEXT)
    taken: list[float] = []
    memory, late = 0, _after(_LIMIT)
    while going_on() or not taken:
        if late():
            raise TimeoutError(f"the attack has not ended after {_LIMIT:.0f} s")
        start = time.perf_counter()
        guest.exchange(request, reply)
        taken.append(time.perf_counter() - start)
        memory = max(memory, server.resident_bytes())
        time.sleep(_PAUSE)
    taken.sort()
    return Phase(statistics.median(taken), taken[len(taken) * 99 // 100], memory)


def _after(seconds: float) -> Callable[[], bool]:
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() > deadline
