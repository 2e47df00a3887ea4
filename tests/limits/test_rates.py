"""``Limit`` and its algorithm, compared to a plain model with exact numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import ImproperlyConfiguredException
from telex.limits import Limit
from telex.limits.rates import Bucket


class FakeClock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Leaking:
    """The model: a bucket of water. ``take`` pours in, the hole lets out ``rate / per`` in a second."""

    def __init__(self, limit: Limit, *, reserves: bool) -> None:
        self.speed = Fraction(limit.rate) / Fraction(limit.per)
        self.most = Fraction(limit.most)
        self.reserves = reserves
        self.level = Fraction(0)

    def pass_time(self, seconds: float) -> None:
        self.level = max(Fraction(0), self.level - Fraction(seconds) * self.speed)

    def take(self, cost: float) -> Fraction:
        over = self.level + min(Fraction(cost), self.most) - self.most
        wait = max(Fraction(0), over / self.speed)
        if not wait or self.reserves:
            self.level += Fraction(cost)
        return wait


LIMITS = st.builds(
    Limit,
    st.integers(1, 1_000),
    per=st.sampled_from([0.25, 1.0, 60.0]),
    burst=st.one_of(st.none(), st.integers(1, 2_000)),
)
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.125, 1.0, 7.5, 600.0]), st.integers(1, 3_000)), max_size=60)


@given(limit=LIMITS, steps=STEPS, reserves=st.booleans())
def test_it_counts_as_a_leaking_bucket_does(limit: Limit, steps: list[tuple[float, int]], reserves: bool) -> None:
    clock = FakeClock()
    bucket, model = Bucket(limit, clock, reserves=reserves), Leaking(limit, reserves=reserves)
    for pause, cost in steps:
        clock.now += pause
        model.pass_time(pause)
        took, expected = bucket.take(cost), model.take(cost)
        assert math.isclose(took, float(expected), rel_tol=1e-6, abs_tol=1e-4)
        if bool(took) != bool(expected):  # on the edge, where floating-point numbers and fractions may disagree
            assert took < 1e-4
            model.level = Fraction(bucket.empty_at - clock.now) * model.speed
            model.level = max(Fraction(0), model.level)


@given(limit=LIMITS, pauses=st.lists(st.floats(0, 10), max_size=100))
def test_no_more_than_promised_is_admitted(limit: Limit, pauses: list[float]) -> None:
    clock = FakeClock()
    bucket, admitted = Bucket(limit, clock), 0
    for pause in pauses:
        clock.now += pause
        admitted += not bucket.take()
    passed = clock.now - 1_000.0
    assert admitted <= limit.most + passed * limit.rate / limit.per + 1


@given(limit=LIMITS)
def test_the_whole_burst_comes_at_once(limit: Limit) -> None:
    bucket = Bucket(limit, FakeClock())
    assert all(not bucket.take() for _ in range(int(limit.most)))
    assert bucket.take() > 0


@given(limit=LIMITS, cost=st.integers(1, 10_000))
def test_what_is_refused_is_admitted_after_the_wait(limit: Limit, cost: int) -> None:
    clock = FakeClock()
    bucket = Bucket(limit, clock)
    while not (wait := bucket.take(cost)):
        pass
    clock.now += wait
    assert bucket.take(cost) == 0


def test_what_is_refused_is_not_counted() -> None:
    clock = FakeClock()
    bucket = Bucket(Limit(1, burst=1), clock)
    assert bucket.take() == 0
    assert {round(bucket.take(), 3) for _ in range(100)} == {1.0}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rate": 0}, "rate=0 lets nothing through: give a number above 0, or leave the limit out"),
        ({"rate": -1}, "rate=-1 lets nothing through"),
        ({"rate": 5, "per": 0}, "per=0 lets nothing through"),
        ({"rate": 5, "burst": 0}, "burst=0 lets nothing through"),
        ({"rate": 0.5}, r"burst=0.5 lets nothing through: give burst=1 or more"),
        ({"rate": math.nan}, "rate is a number, not nan"),
        ({"rate": math.inf}, "rate is a number, not inf"),
        ({"rate": True}, "rate is a number, not True"),
        ({"rate": "5"}, "rate is a number, not '5'"),
        ({"rate": 5, "on_exceed": "drop"}, "on_exceed is 'wait', 'reply' or 'close', not 'drop'"),
    ],
)
def test_a_limit_that_is_none_is_an_error(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ImproperlyConfiguredException, match=says):
        Limit(**arguments)
