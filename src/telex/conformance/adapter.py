"""The process of a client under test: commands go to its input, observations come from its output.

A line of commands is a JSON list of objects, a line of observations is one JSON object.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

import msgspec

__all__ = ("Adapter",)

STOP_WITHIN: Final = 2.0
LONGEST_LINE: Final = 1 << 20


class Adapter:
    """Runs the command as long as the context lasts."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self.observations: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Adapter:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, limit=LONGEST_LINE
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_WITHIN)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reading

    async def tell(self, commands: Sequence[dict[str, Any]]) -> None:
        """Send commands, in one line.

        :raises OSError: the process has ended.
        """
        assert self._process.stdin is not None  # noqa: S101
        self._process.stdin.write(msgspec.json.encode(commands) + b"\n")
        await self._process.stdin.drain()

    async def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101
        async for line in self._process.stdout:
            try:
                found = msgspec.json.decode(line)
            except msgspec.DecodeError:
                found = None
            known = found if isinstance(found, dict) else {"no observation": line.decode("utf-8", "replace").strip()}
            self.observations.put_nowait(known)
        self.observations.put_nowait({"no observation": "the adapter has ended"})
