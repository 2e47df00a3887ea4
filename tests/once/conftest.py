"""The two servers of the fast lane, and a Redis server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from telex import redis_server
from tests.channels.brokers import Valkey
from tests.contract.servers import KINDS, ServerKind


@pytest.fixture(params=[each for each in KINDS if each.name in {"uvicorn-websockets", "telex"}], ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """Stock uvicorn, and Telex's own server, where frames are handled in the frame callback."""
    found: ServerKind = request.param
    return found


@pytest.fixture(scope="module")
def shared() -> Iterator[Valkey]:
    """A Redis server for all tests that do it no harm."""
    yield from started()


@pytest.fixture
def own() -> Iterator[Valkey]:
    """One for a test that does."""
    yield from started()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may take its time: the machine may be busy."""
    monkeypatch.setattr(redis_server, "ANSWER_WITHIN", 20.0)


def started() -> Iterator[Valkey]:
    valkey = Valkey()
    try:
        valkey.start()
        yield valkey
    finally:
        valkey.remove()
