"""What the app and the worker must agree on."""

from __future__ import annotations

import os

from msgspec import Struct

from telex.channels import Keep

URL = os.environ.get("CHANNELS_URL", "memory://")
"""The broker. With ``memory://`` the app is one process, and no worker can publish to it."""

HISTORY = {"room:*": Keep(size=200, seconds=3600), "job:*": Keep(size=100, seconds=3600)}
"""What is kept of each channel. All publishers to a channel use the same value."""


class Progress(Struct, frozen=True):
    """The progress of a job; it has ended when ``done`` equals ``steps``."""

    job: str
    done: int
    steps: int
