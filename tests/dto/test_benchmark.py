"""The benchmark runs with the smallest load and checks the replies itself."""

from __future__ import annotations

import pytest

from benchmarks import dto

pytestmark = pytest.mark.slow


def test_the_benchmark_measures_every_kind_of_model(capsys: pytest.CaptureFixture[str]) -> None:
    dto.main(["--messages", "20", "--rounds", "1"])
    printed = capsys.readouterr().out
    for kind in dto.KINDS:
        assert f"| {kind}, typed echo |" in printed
    assert printed.count("| Litestar with a DTO |") == len(dto.KINDS)
