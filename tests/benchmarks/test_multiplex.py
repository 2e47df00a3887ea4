"""The benchmark of many routes on one socket runs, on the smallest scale, and each of its calls is answered."""

from __future__ import annotations

import pytest

from benchmarks.certificate import made
from benchmarks.multiplex import WAYS, costs, memory, serving

pytestmark = pytest.mark.slow


def test_a_call_on_a_route_is_measured_beside_a_direct_one() -> None:
    with serving(None) as server:
        lines = costs(server, 1, calls=200)
    assert len(lines) == len(WAYS)
    assert all(" us direct, " in line for line in lines)


@pytest.mark.parametrize("tls", [False, True])
def test_the_memory_of_routes_is_measured_beside_that_of_sockets(tls: bool) -> None:
    with made() as certificate, serving(None, certificate if tls else None) as server:
        lines = memory(server, sockets=1)
    assert lines[0].startswith("an idle direct connection: ")
    assert lines[1].startswith("100 routes on one socket: ")
