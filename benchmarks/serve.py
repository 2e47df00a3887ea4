"""The server's process: ``python -m benchmarks.serve PEER APP DESCRIPTOR CORE [CERTIFICATE KEY]``."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from benchmarks.certificate import Certificate
from benchmarks.peers import PEERS


def main(peer: str, app: str, descriptor: str, core: str, *files: str) -> None:
    """Serves on a listening socket until it is killed."""
    if core != "None":
        os.sched_setaffinity(0, {int(core)})
    certificate = Certificate(*map(Path, files)) if files else None
    PEERS[peer].serve(app, socket.socket(fileno=int(descriptor)), certificate)


if __name__ == "__main__":
    main(*sys.argv[1:])
