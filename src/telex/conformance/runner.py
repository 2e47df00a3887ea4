"""Runs scenarios: plays the server's part, tells the adapter the client's, and compares what comes."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from telex.conformance import scenarios
from telex.conformance.adapter import Adapter
from telex.conformance.scenarios import Scenario, matches
from telex.conformance.server import ScriptedHandshake, ScriptedLine, ScriptedServer

__all__ = ("Result", "run")

T = TypeVar("T")

PATIENCE: Final = 15.0
"""Seconds that a client may take for one step, if nobody says otherwise: no scenario measures how fast it is."""
EARLY: Final = 0.02
"""Seconds that a client may be early: timers of some languages fire a little before their time."""
AT_ONCE: Final = 4
HELLO: Final[dict[str, object]] = {
    "type": "hello",
    "session": "s",
    "ping": 20,
    "max": 65536,
    "credit": 16,
    "bytes": 4194304,
    "features": [],
}
UNASKED: Final = frozenset({"ping", "pong", "credit"})
"""Frames that a client may send at any time."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a scenario has ended; ``problem`` is empty where the client has passed."""

    scenario: Scenario
    problem: str = ""


class Failed(Exception):
    """A step has not gone as it should."""


async def run(
    command: Sequence[str],
    chosen: Iterable[Scenario],
    report: Callable[[Result], None],
    *,
    patience: float = PATIENCE,
) -> list[Result]:
    """Run scenarios, some at once, each with a process and a server of its own."""
    places = asyncio.Semaphore(AT_ONCE)

    async def run_in_turn(scenario: Scenario) -> Result:
        async with places:
            result = Result(scenario, await _run_one(command, scenario, patience))
        report(result)
        return result

    return await asyncio.gather(*(run_in_turn(each) for each in chosen))


async def _run_one(command: Sequence[str], scenario: Scenario, patience: float) -> str:
    async with ScriptedServer() as server, Adapter(command) as adapter:
        play = Play(server, adapter, patience)
        await adapter.tell([{"do": "begin", "url": server.url, "scenario": scenario.name}])
        for number, step in enumerate(scenario.steps, 1):
            try:
                await play.take(step)
            except Failed as failed:
                return f"step {number}, {msgspec.json.encode(step).decode()}: {failed}"
            except OSError:
                return f"step {number}: the adapter has ended"
    return ""


class Play:
    """The state of one scenario."""

    def __init__(self, server: ScriptedServer, adapter: Adapter, patience: float) -> None:
        self._server = server
        self._adapter = adapter
        self._patience = patience
        self._lines: list[ScriptedLine] = []
        self._quiet_since = 0.0

    async def take(self, step: scenarios.ScenarioStep) -> None:
        """Take one step.

        :raises Failed: the client has done something else.
        """
        await _STEPS[type(step)](self, step)

    def _line(self, number: int) -> ScriptedLine:
        return self._lines[number - 1]

    async def _tell(self, step: scenarios.TellStep) -> None:
        await self._adapter.tell(step.do)

    async def _accept(self, step: scenarios.AcceptStep) -> None:
        handshake = await self._handshake(step.after)
        problem = _problem(step, handshake)
        if problem:
            raise Failed(problem)
        handshake.decision.set_result((step.subprotocol, None, ""))
        line = await self._soon(handshake.line, "the client did not finish its handshake")
        self._lines.append(line)
        if step.hello is not None:
            await line.send({**HELLO, **step.hello})

    async def _refuse(self, step: scenarios.RefuseStep) -> None:
        handshake = await self._handshake(step.after)
        handshake.decision.set_result((None, http.HTTPStatus(step.status), step.body))
        self._mark()

    async def _handshake(self, after: float) -> ScriptedHandshake:
        handshake = await self._soon(self._server.handshakes.get(), "no connection came")
        early = self._quiet_since + after - handshake.at
        if early > EARLY:
            raise Failed(f"the connection came {early:.3f} s too early")
        return handshake

    async def _send(self, step: scenarios.SendStep) -> None:
        if step.frame["type"] == "goaway":
            self._mark()
        await self._line(step.on).send(step.frame)

    async def _send_raw(self, step: scenarios.SendRawStep) -> None:
        await self._line(step.on).send_raw(step.text)

    async def _expect(self, step: scenarios.ExpectStep) -> None:
        line = self._line(step.on)
        while True:
            found = await self._soon(line.frames.get(), "no frame came")
            if matches(step.frame, found):
                break
            if found.get("type") not in UNASKED:
                raise Failed(f"the client sent {found}")
        present = [key for key in step.without if key in found]
        if present:
            raise Failed(f"the frame has {present}: {found}")
        early = line.began + step.after - asyncio.get_running_loop().time()
        if early > EARLY:
            raise Failed(f"the frame came {early:.3f} s too early")

    async def _close(self, step: scenarios.CloseStep) -> None:
        self._mark()
        await self._line(step.on).close(step.code, step.reason)

    async def _cut(self, step: scenarios.CutStep) -> None:
        self._mark()
        self._line(step.on).cut()

    async def _left(self, step: scenarios.LeftStep) -> None:
        await self._soon(self._line(step.on).ended.wait(), "the client did not close the connection")

    async def _observe(self, step: scenarios.ObserveStep) -> None:
        while True:
            found = await self._soon(self._adapter.observations.get(), "nothing was observed")
            if matches(step.that, found):
                return
            if "status" not in found:
                raise Failed(f"the client observed {found}")

    async def _quiet(self, step: scenarios.QuietStep) -> None:
        await asyncio.sleep(step.seconds)
        if not self._server.handshakes.empty():
            raise Failed("the client opened a connection")
        for line in self._lines:
            while not line.frames.empty():
                found = line.frames.get_nowait()
                if found.get("type") not in UNASKED:
                    raise Failed(f"the client sent {found}")
        while not self._adapter.observations.empty():
            observed = self._adapter.observations.get_nowait()
            if "status" not in observed:
                raise Failed(f"the client observed {observed}")

    async def _soon(self, wait: Awaitable[T], problem: str) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await wait
        except TimeoutError:
            raise Failed(f"{problem} within {self._patience:g} s") from None

    def _mark(self) -> None:
        self._quiet_since = asyncio.get_running_loop().time()


def _problem(step: scenarios.AcceptStep, handshake: ScriptedHandshake) -> str:
    if step.token is not None and handshake.token != step.token:
        return f"the token is {handshake.token!r}"
    wrong = [key for key, value in step.query.items() if handshake.query.get(key) != value]
    present = [key for key in step.without if key in handshake.query]
    return f"the query is {dict(handshake.query)}" if wrong or present else ""


_STEPS: Final[dict[type, Callable[[Play, Any], Awaitable[None]]]] = {
    scenarios.TellStep: Play._tell,
    scenarios.AcceptStep: Play._accept,
    scenarios.RefuseStep: Play._refuse,
    scenarios.SendStep: Play._send,
    scenarios.SendRawStep: Play._send_raw,
    scenarios.ExpectStep: Play._expect,
    scenarios.CloseStep: Play._close,
    scenarios.CutStep: Play._cut,
    scenarios.LeftStep: Play._left,
    scenarios.ObserveStep: Play._observe,
    scenarios.QuietStep: Play._quiet,
}
