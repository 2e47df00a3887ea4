"""The benchmark of telex.v1 runs, on the smallest scale, and its calls are answered right."""

from __future__ import annotations

import pytest

from benchmarks.processes import serving
from benchmarks.protocol import PEERS, crowd, ratio

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("peer", PEERS)
def test_a_call_is_measured_beside_a_plain_message(peer: str) -> None:
    plain, call = ratio(peer, 1, 0.02, None, connections=2)
    assert 0 < plain < 10_000
    assert 0 < call < 10_000


@pytest.mark.parametrize("peer", ["telex-async", "telex-async-own"])
def test_a_crowd_asks_and_is_asked(peer: str) -> None:
    with serving(peer, "asks") as server:
        found = crowd(server, 20, 0.05)
    assert found.calls >= 20
    assert 0 < found.p99 < 30
