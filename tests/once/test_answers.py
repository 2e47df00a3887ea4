"""What is kept of calls, and for how long: in memory within bounds, and in Redis on its clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from telex.once import Once, answers
from telex.once.answers import LONGEST_ANSWER, Claim, KeptAnswer, KeptError, MemoryAnswers
from telex.once.keys import CallId
from telex.once.redis_answers import RedisAnswers
from tests.channels.brokers import Valkey
from tests.limits.test_rates import FakeClock

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.usefixtures("patient")]

OURS = Claim("ours")
ONE = KeptAnswer.of('"one"')


def of_user(key: int | str, user: str = "ada") -> CallId:
    return CallId(user, str(key), is_of_user=True)


async def test_memory_keeps_an_answer_for_its_time() -> None:
    clock = FakeClock()
    store = MemoryAnswers(Once(within=10), "here", clock)
    assert await store.claim(of_user(1), "m") == OURS
    await store.keep(of_user(1), "m", ONE)
    assert await store.claim(of_user(1), "m") == Claim("answered", ONE)
    assert await store.claim(of_user(1), "other") == Claim("other")
    clock.now += 10
    assert await store.claim(of_user(1), "other") == OURS
    assert (len(store), store.bytes, store.forgotten) == (0, 0, 0)


async def test_memory_keeps_so_many_answers_of_a_user_and_the_oldest_goes_first() -> None:
    store = MemoryAnswers(Once(results=3), "here")
    for key in range(5):
        await store.keep(of_user(key), "m", ONE)
    await store.keep(of_user(0, "ben"), "m", ONE)
    states = [(await store.claim(of_user(key), "m")).state for key in range(5)]
    assert states == ["ours", "ours", "answered", "answered", "answered"]
    assert len(store) == 4
    for key in range(10):  # without a user each key stands for itself
        await store.keep(CallId(f"scope {key}", "k", is_of_user=False), "m", ONE)
    assert len(store) == 14


@pytest.mark.parametrize(("bound", "most"), [("MOST_ANSWERS", 10), ("MOST_BYTES", 10_000)])
async def test_memory_is_bounded_in_all_and_counts_what_it_forgets(
    bound: str, most: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, bound, most)
    store = MemoryAnswers(Once(), "here")
    for key in range(200):
        await store.keep(CallId(str(key), "k", is_of_user=key % 2 == 0), "m", KeptAnswer.of(b"x" * 500))
        assert len(store) <= 10
        assert store.bytes <= 10_000
    assert store.forgotten == 200 - len(store)
    assert caplog.text.count("too many answers to calls with keys") == 1


def test_of_a_long_answer_only_that_it_was_given_is_kept() -> None:
    assert KeptAnswer.of("x" * LONGEST_ANSWER).fitted().data == "x" * LONGEST_ANSWER
    error = KeptAnswer.of(b"x" * (LONGEST_ANSWER + 1)).fitted().error
    assert error is not None
    assert (error.code, error.data) == ("conflict", '{"reason":"answer_not_kept"}')


@asynccontextmanager
async def stores(url: str, count: int, **options: Any) -> AsyncIterator[list[RedisAnswers]]:
    """One for each process."""
    once = Once(store=url, **options)
    found = [RedisAnswers(once, "here") for _ in range(count)]
    try:
        yield found
    finally:
        for store in found:
            await store.aclose()


@pytest.mark.broker
@pytest.mark.parametrize(
    "answer",
    [
        KeptAnswer(),
        ONE,
        KeptAnswer.of(b"\x00\xff"),
        KeptAnswer(error=KeptError("sold_out", "no tea", "$.x", '{"left":0}')),
    ],
)
async def test_redis_gives_each_answer_to_other_processes(shared: Valkey, answer: KeptAnswer) -> None:
    call = of_user(str(hash(answer)), "redis")
    async with stores(shared.url, 2) as (one, two):
        assert await one.claim(call, "m") == OURS
        assert await two.claim(call, "m") == Claim("running")
        assert await two.claim(call, "other") == Claim("other")
        await one.keep(call, "m", answer)
        assert await two.claim(call, "m") == Claim("answered", answer)
        assert await two.claim(call, "other") == Claim("other")


@pytest.mark.broker
async def test_redis_forgets_a_failed_call_and_only_its_owner_can(shared: Valkey) -> None:
    call = of_user("failed")
    async with stores(shared.url, 2) as (one, two):
        assert await one.claim(call, "m") == OURS
        await two.forget(call)
        assert await two.claim(call, "m") == Claim("running")
        await one.forget(call)
        assert await two.claim(call, "other") == OURS
        await one.keep(call, "m", ONE)  # it comes too late: another process runs the call
        assert await one.claim(call, "other") == Claim("running")
        await two.keep(call, "other", ONE)
        await two.forget(call)
        assert await one.claim(call, "other") == Claim("answered", ONE)


@pytest.mark.broker
@pytest.mark.parametrize(("policy", "after"), [("refuse", Claim("lost")), ("run", OURS)])
async def test_a_claim_that_nobody_renews_is_lost(shared: Valkey, policy: str, after: Claim) -> None:
    call = of_user(f"lost {policy}")
    async with stores(shared.url, 2, if_interrupted=policy, lease=0.2) as (one, two):
        assert await one.claim(call, "m") == OURS
        await one.aclose()  # as the end of its process
        async with asyncio.timeout(20):
            while (found := await two.claim(call, "m")) == Claim("running"):  # noqa: ASYNC110  # as a caller does
                await asyncio.sleep(0.02)
        assert found == after


@pytest.mark.broker
async def test_a_claim_is_renewed_also_after_a_flush(own: Valkey) -> None:
    call = of_user("long")
    async with stores(own.url, 2, lease=3) as (one, two), Redis.from_url(own.url) as redis:
        assert await one.claim(call, "m") == OURS
        await redis.flushall()
        await redis.script_flush()
        async with asyncio.timeout(20):
            while not await redis.keys("*"):  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(0.02)
        assert await two.claim(call, "m") == Claim("running")
        await one.keep(call, "m", ONE)
        assert await two.claim(call, "m") == Claim("answered", ONE)


@pytest.mark.broker
async def test_redis_keeps_so_many_answers_of_a_user(shared: Valkey) -> None:
    async with stores(shared.url, 1, results=3, within=60) as (one,), Redis.from_url(shared.url) as redis:
        for key in [*range(5), 4]:  # the last is kept once
            await one.claim(of_user(key, "bound"), "m")
            await one.keep(of_user(key, "bound"), "m", ONE)
        states = [(await one.claim(of_user(key, "bound"), "m")).state for key in (2, 3, 4, 0)]
        assert states == ["answered", "answered", "answered", "ours"]
        await one.forget(of_user(0, "bound"))
        names = await redis.keys("telex:once:{bound}:*")
        assert len(names) == 4  # three answers and their order
        assert all([0 < await redis.pttl(name) <= 60_000 for name in names])


@pytest.mark.broker
async def test_nothing_depends_on_the_clocks_of_processes(shared: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    call = of_user("clock")
    async with stores(shared.url, 2, within=60) as (one, two):
        monkeypatch.setattr("time.time", lambda: 1.0)
        assert await one.claim(call, "m") == OURS
        await one.keep(call, "m", ONE)
        monkeypatch.setattr("time.time", lambda: 1e10)
        assert await two.claim(call, "m") == Claim("answered", ONE)
