"""Autobahn's suite, as much of it as fits into every run; ``scripts/conformance --full`` runs all."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.server.conformance import described, run

pytestmark = pytest.mark.slow

KNOWN_NON_STRICT = {"6.4.3", "6.4.4"}
"""Invalid text is noticed at the end of the frame that has it, not within: see docs/conformance.md."""

INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
"""Cases without a right answer."""


@pytest.mark.timeout(400)
async def test_core() -> None:
    results = await run("core")
    unusual = {case for case, verdict in results.items() if verdict != "OK"}
    assert unusual == KNOWN_NON_STRICT | INFORMATIONAL, described(results)
    assert len(results) == 247


@pytest.mark.timeout(400)
async def test_an_app_that_answers_by_events_answers_in_time() -> None:
    results = await run("order", "events")
    assert {case for case, verdict in results.items() if verdict != "OK"} == INFORMATIONAL, described(results)
    assert len(results) > 50


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("part", "count"), [("limits", 54), ("deflate", 36)])
async def test_limits_and_compression(part: str, count: int) -> None:
    results = await run(part)
    assert Counter(results.values()) == {"OK": count}, described(results)
