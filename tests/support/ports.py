"""Ports for servers that take a number, not a socket."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

BELOW_EPHEMERAL = range(15_000, 32_000)
"""The kernel gives these to no connection by itself: a free one stays free until a server binds it."""

_chance = random.SystemRandom()  # the shared generator is seeded by hypothesis, in every process alike


def free_port(host: str = "127.0.0.1") -> int:
    """A port without a listener, which no client of another test gets before the server binds it."""
    for _ in range(100):
        port = _chance.choice(BELOW_EPHEMERAL)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((host, port))
            return port
    raise RuntimeError(f"no port of {BELOW_EPHEMERAL} is free")
