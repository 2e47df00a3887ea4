"""Ports for servers that take a number, not a socket."""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from contextlib import suppress

BELOW_EPHEMERAL = range(15_000, 32_000)
"""The kernel gives these to no connection by itself: a free one stays free until a server binds it."""

WORKERS = 16
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
_of_this_process = BELOW_EPHEMERAL[_worker::WORKERS]
"""Workers side by side have different ports, as a port is chosen some time before a server binds it."""

_given: deque[int] = deque(maxlen=len(_of_this_process) // 2)
"""Not given again soon: a cluster chooses the ports of all nodes before it starts the first."""

_chance = random.SystemRandom()  # the shared generator is seeded by hypothesis, in every process alike


def free_port(host: str = "127.0.0.1") -> int:
    """A port without a listener, which no other test gets before the server binds it."""
    for _ in range(1000):
        port = _chance.choice(_of_this_process)
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            _given.append(port)
            return port
    raise RuntimeError(f"no port of {_of_this_process} is free")
