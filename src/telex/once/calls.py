"""The calls with keys of one listener.

::

    claim the key in the store -> run the handler -> keep the answer, or forget the key -> answer all who wait

    the handler                              what the next call with its key gets
    --------------------------------------   ------------------------------------------------------------------------
    returned                                 the answer
    raised a declared error                  the error
    raised anything else                     a run of its own: the key is forgotten
    was cancelled, timed out, used the       ``conflict``, as it may have had its effect; with
    connection of a client that has left,    ``if_interrupted="run"`` a run of its own
    or its process ended
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any, Final

from telex.connection import Socket
from telex.event_reader import as_unexpected
from telex.exception_handling import familiar
from telex.exceptions import WebSocketException
from telex.once.answers import OTHER_MESSAGE, OUTCOME_UNKNOWN, KeptAnswer, KeptError
from telex.once.keys import CURRENT, call_id, fingerprint, what_is_wrong
from telex.once.options import Once
from telex.once.runs import MOST_ORPHANS, OnceRun, OnceRuns, Outcome, RunsHere
from telex.protocol.failures import SettledError
from telex.protocol.frames import Encoded
from telex.protocol.jobs import CallTarget, FramePlan, Job
from telex.redis_server import PAUSE, StoreUnavailable

__all__ = ("OnceCalls",)

logger: Final = logging.getLogger("telex")

FIRST_LOOK: Final = 0.02
LAST_LOOK: Final = 0.5
"""Seconds between two looks at a call that another process runs; they grow from the first to the last."""


class OnceCalls:
    """The calls with keys of one listener; see :class:`telex.protocol.jobs.KeyedCalls`."""

    def __init__(self, once: Once, runs: OnceRuns, *, where: str, path: str, contract: str) -> None:
        self._once = once
        self._runs = runs
        self._where = where
        self._path = path
        self._contract = contract
        if once.store is None:
            logger.info(
                "%s: idempotent remembers calls in this process alone: another process, or this one after a restart,"
                " runs them again. Give idempotent=Once(store='redis://…') for all processes",
                where,
            )

    def what_is_wrong(self, socket: Socket, key: str) -> str:
        """Why the client cannot use this key; empty if it can."""
        return what_is_wrong(socket, key)

    def target(self, plan: FramePlan, socket: Socket, job: Job, target: CallTarget) -> CallTarget:
        """What handles ``job`` instead of ``target``."""
        return CallTarget(partial(self._call, plan, socket, job, target), _as_it_is, awaits=True)

    async def _call(self, plan: FramePlan, socket: Socket, job: Job, target: CallTarget, data: Any) -> Encoded | None:
        """Join the run of the job's key, or begin one; returns the encoded reply.

        :raises SettledError: the error that the caller gets.
        """
        here = self._runs.here()
        call = call_id(socket, job.key or "", self._once.name, self._path)
        message = fingerprint(job.raw, self._contract, is_json=job.is_json)
        run = here.runs.get(call)
        if run is None:
            run = OnceRun(call, message, here.store(self._once, self._where))
            here.start(run, self._perform(here, run, plan, socket, target, data))
        elif run.message != message:
            raise OTHER_MESSAGE.raised()
        outcome = await here.wait(run, job)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.error is not None:
            raise outcome.error.raised()
        return outcome.data

    async def _perform(
        self, here: RunsHere, run: OnceRun, plan: FramePlan, socket: Socket, target: CallTarget, data: Any
    ) -> None:
        """One run, from its claim to its end."""
        record: KeptAnswer | None = None
        outcome: Outcome
        try:
            async with asyncio.timeout(self._once.within if plan.timeout is None else plan.timeout):
                found = await self._claim(run)
                if found is not None:
                    here.leave_table(run)
                    run.end(found)
                    return
                run.is_begun = True
                CURRENT.set(run.call.digest)
                outcome, record = await self._handle(plan, socket, target, data)
        except StoreUnavailable:
            text = "the store of keys does not answer; the call has not run"
            outcome = SettledError("unavailable", text, retry_after=PAUSE)
        except TimeoutError:
            outcome, record = self._interrupted(run, SettledError("timeout", "the call took too long"))
        except asyncio.CancelledError:
            outcome, record = self._interrupted(run, SettledError("cancelled", "the call was cancelled"))
        run.is_over = True
        await self._settle(here, run, outcome, record)

    async def _claim(self, run: OnceRun) -> Outcome | None:
        """Claim the key, or wait for the process that has; ``None`` if the call is ours to run."""
        pause = FIRST_LOOK
        while True:
            state, answer = await run.store.claim(run.call, run.message)
            match state:
                case "ours":
                    return None
                case "answered":
                    return answer
                case "other":
                    return OTHER_MESSAGE.raised()
                case "lost":
                    return OUTCOME_UNKNOWN.raised()
            if not run.waiting:
                return SettledError("cancelled", "nobody waits for the call")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_LOOK)

    async def _handle(
        self, plan: FramePlan, socket: Socket, target: CallTarget, data: Any
    ) -> tuple[Outcome, KeptAnswer | None]:
        """Run the handler; returns what its callers get, and what is kept of it."""
        try:
            reply = await _result(target, data)
        except asyncio.CancelledError as exc:
            return await self._failed(plan, socket, as_unexpected(exc))
        except Exception as exc:
            return await self._failed(plan, socket, exc)
        try:
            answer = KeptAnswer.of(reply if target.answers or target.write is None else target.write(reply))
        except Exception as exc:  # the handler has had its effect
            answer = KeptAnswer(error=KeptError.of(await plan.settle(socket, exc)))
        return answer, answer

    async def _failed(self, plan: FramePlan, socket: Socket, exc: Exception) -> tuple[Outcome, KeptAnswer | None]:
        if plan.errors.is_disconnect(socket, exc):
            logger.warning(
                "%s used the connection of a call with a key after its client had left: the call was interrupted",
                self._where,
            )
            return self._interrupted(None, SettledError("cancelled", "the client that began the call has left"))
        error = familiar(exc)
        if isinstance(error, WebSocketException):
            return exc, None
        try:
            settled = await plan.settle(socket, exc)
        except Exception as raised:  # by an exception handler
            return raised, None
        if not plan.failures.is_declared(error):
            return settled, None
        answer = KeptAnswer(error=KeptError.of(settled))
        return answer, answer

    def _interrupted(self, run: OnceRun | None, outcome: Outcome) -> tuple[Outcome, KeptAnswer | None]:
        may_have_run = run is None or run.is_begun
        return outcome, _UNKNOWN if may_have_run and self._once.if_interrupted == "refuse" else None

    async def _settle(self, here: RunsHere, run: OnceRun, outcome: Outcome, record: KeptAnswer | None) -> None:
        """Tell the store, then the callers; they do not wait for a store that does not answer."""
        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + self._once.within
        while True:
            try:
                if record is None:
                    await run.store.forget(run.call)
                else:
                    await run.store.keep(run.call, run.message, record.fitted())
                break
            except StoreUnavailable:
                run.end(outcome)
                here.orphans.add(run)
                if len(here.orphans) > MOST_ORPHANS or loop.time() > gives_up_at:
                    logger.warning("%s: the store of calls with keys did not take an answer", self._where)
                    break
                await asyncio.sleep(PAUSE)
        here.leave_table(run)
        run.end(outcome)


_UNKNOWN: Final = KeptAnswer(error=OUTCOME_UNKNOWN)


async def _result(target: CallTarget, data: Any) -> Any:
    """The reply of the handler. One that answers before its cleanup, such as a commit, has it encoded, and cleaned."""
    if not target.answers:
        reply = target.handle(data)
        return await reply if target.awaits else reply
    encoded: list[Encoded | None] = []

    def keep(reply: Any) -> None:
        encoded.append(None if target.write is None else target.write(reply))

    await target.handle(data, keep)
    return encoded[0]


def _as_it_is(reply: Any) -> Any:
    return reply
