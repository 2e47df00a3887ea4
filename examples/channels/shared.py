"""What the app and the worker must agree on."""

from __future__ import annotations

import os

from msgspec import Struct

from telex.channels import Keep

URL = os.environ.get("CHANNELS_URL", "memory://")
"""The broker. In memory the app is one process, and no worker reaches it."""

HISTORY = {"room:*": Keep(size=200, seconds=3600), "job:*": Keep(size=100, seconds=3600)}
"""What is kept of each channel. All publishers to a channel say the same."""


class Progress(Struct, frozen=True):
    """How far a job is; it is at its end when ``done`` equals ``steps``."""

    job: str
    done: int
    steps: int
