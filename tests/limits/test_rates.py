"""``Limit`` and its algorithm, compared to a plain model with exact numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telex import ImproperlyConfiguredException
from telex.limits import Limit
from telex.limits.rates import counter, spend

Take: TypeAlias = Callable[[int], float]


class Form(Protocol):
    """Makes the function that takes a cost, and returns the seconds to wait."""

    def __call__(self, limit: Limit, clock: FakeClock, *, reserves: bool) -> Take: ...


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


class Spending:
    """:func:`spend` with a state beside it, as stores use it."""

    def __init__(self, limit: Limit, clock: FakeClock, *, reserves: bool) -> None:
        self.limit, self.clock, self.reserves = limit, clock, reserves
        self.empty_at = -math.inf

    def __call__(self, cost: int) -> float:
        empty_at, wait = spend(self.limit, self.empty_at, self.clock(), cost)
        if not wait or self.reserves:
            self.empty_at = empty_at
        return wait


def counting(limit: Limit, clock: FakeClock, *, reserves: bool) -> Take:
    return counter(limit, clock, size=int, reserves=reserves)


FORMS = pytest.mark.parametrize("form", [Spending, counting])


@FORMS
@given(limit=LIMITS, steps=STEPS, reserves=st.booleans())
def test_it_counts_as_a_leaking_bucket_does(
    form: Form, limit: Limit, steps: list[tuple[float, int]], reserves: bool
) -> None:
    clock = FakeClock()
    take, model = form(limit, clock, reserves=reserves), Leaking(limit, reserves=reserves)
    for pause, cost in steps:
        clock.now += pause
        model.pass_time(pause)
        level = model.level
        took, expected = take(cost), model.take(cost)
        assert math.isclose(took, float(expected), rel_tol=1e-6, abs_tol=1e-4)
        if bool(took) != bool(expected):  # on the edge, where floating-point numbers and fractions disagree
            assert max(took, float(expected)) < 1e-4
            model.level = level if took and not reserves else level + cost


@FORMS
@given(limit=LIMITS, pauses=st.lists(st.floats(0, 10), max_size=100))
def test_no_more_than_promised_is_admitted(form: Form, limit: Limit, pauses: list[float]) -> None:
    clock = FakeClock()
    take, admitted = form(limit, clock, reserves=False), 0
    for pause in pauses:
        clock.now += pause
        admitted += not take(1)
    passed = clock.now - 1_000.0
    assert admitted <= limit.most + passed * limit.rate / limit.per + 1


@given(limit=LIMITS)
def test_the_whole_burst_comes_at_once(limit: Limit) -> None:
    take = counter(limit, FakeClock())
    assert not any(take("anything") for _ in range(int(limit.most)))
    assert take("anything") > 0


@FORMS
@given(limit=LIMITS, cost=st.integers(1, 10_000))
def test_what_is_refused_is_admitted_after_the_wait(form: Form, limit: Limit, cost: int) -> None:
    clock = FakeClock()
    take = form(limit, clock, reserves=False)
    while not (wait := take(cost)):
        pass
    clock.now += wait
    assert take(cost) == 0


@FORMS
def test_what_is_refused_is_not_counted(form: Form) -> None:
    take = form(Limit(1, burst=1), FakeClock(), reserves=False)
    assert take(1) == 0
    assert {round(take(1), 3) for _ in range(100)} == {1.0}


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
