"""The two servers of the fast lane: one without a fast path for messages, one with it."""

from __future__ import annotations

import pytest

from tests.contract.servers import KINDS, ServerKind


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server, where messages are handled in the frame callback."""
    found: ServerKind = request.param
    return found
