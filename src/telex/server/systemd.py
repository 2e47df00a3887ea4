"""Tells systemd that a service of ``Type=notify`` is ready, and that it stops (sd_notify(3))."""

from __future__ import annotations

import os
import socket

__all__ = ("notify",)


def notify(state: str) -> None:
    """Send ``state``, such as ``READY=1``, to the service manager; does nothing if no manager waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
            manager.sendall(state.encode())
