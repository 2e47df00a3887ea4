"""The servers as fixtures: ``server`` is each of them, ``loop_server`` each that runs in the test's own loop."""

from __future__ import annotations

import pytest

from tests.contract.servers import KINDS, ServerKind


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> ServerKind:
    """Each server, to run an app as a process: ``async with server.process("module:attribute") as running``."""
    kind: ServerKind = request.param
    return kind


@pytest.fixture(params=[kind for kind in KINDS if kind.serves_in_loop], ids=lambda kind: kind.name)
def loop_server(request: pytest.FixtureRequest) -> ServerKind:
    """Each server that runs an app object in the test's own loop: ``async with loop_server.loop(app) as running``."""
    kind: ServerKind = request.param
    return kind
