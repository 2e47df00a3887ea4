"""What may be missing in a test run, and where nothing may be missing."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

_running: Final[list[pytest.Item]] = []

LEFT_OUT: Final = ("slow", "long", "broker", "browser", "stock", "peer", "program")
"""The marks that ``scripts/test --fast`` leaves out."""

SHARED_SERVERS: Final = "subjects"
"""The fixture whose server processes a worker starts once for all tests: they need no mark."""


def is_left_out(module: Path, lane: str) -> bool:
    """Whether the ``pytestmark`` of a module keeps it out of a lane like ``not slow and not broker``.

    Such a module need not be imported, which saves a fifth of the time of collecting the fast lane.
    """
    terms = [term.split() for term in lane.split(" and ")]
    if module.suffix != ".py" or any(len(term) != 2 or term[0] != "not" for term in terms):
        return False
    marks = re.search(r"^pytestmark = (.*)$", module.read_text("utf-8"), re.MULTILINE)
    return marks is not None and any(f"pytest.mark.{name}" in re.split(r"[^\w.]+", marks[1]) for _, name in terms)


def note_running(item: pytest.Item | None) -> None:
    """Called with each test before its set-up, and with ``None`` after its end."""
    _running[:] = [] if item is None else [item]


def require_mark(name: str) -> None:
    """Fails a test that uses what its lane may leave out, and does not carry the mark that says so."""
    for item in _running:
        if item.get_closest_marker(name) is None:
            pytest.fail(f"{item.nodeid} needs @pytest.mark.{name}: `scripts/test --fast` runs it otherwise")


def programs_need_a_mark(event: str, details: tuple[object, ...]) -> None:
    """An audit hook that fails a test of the fast lane which starts a program for itself; git takes no time."""
    if event != "subprocess.Popen" or details[0] == "git":
        return
    for item in _running:
        is_shared = isinstance(item, pytest.Function) and SHARED_SERVERS in item.fixturenames
        if not is_shared and not any(item.get_closest_marker(name) for name in LEFT_OUT):
            require_mark("program")


def everything_is_demanded() -> bool:
    """Whether a skipped test is a failure: in CI, which installs all that the tests need."""
    return os.environ.get("CI") == "true"


def browser_is_demanded() -> bool:
    """Whether tests marked ``browser`` must run even if that means that they fail."""
    return everything_is_demanded() or os.environ.get("TELEX_REQUIRE_BROWSER") == "1"


def chromium_path() -> str | None:
    """Where the machine's Chromium is, or ``None`` where it has none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
