"""Worker processes: replaced on SIGHUP and when they die, and drained once. A file decides how a new worker starts."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.conftest import connected
from tests.server.test_runner import opened, pid_behind, script
from tests.support.ports import free_port
from tests.support.raw import TEXT, frame

pytestmark = [pytest.mark.slow, pytest.mark.program]

APP = """
import asyncio, os, pathlib
from tests.server.test_runner import pid_app

MODE = pathlib.Path(__file__).with_name("mode").read_text()
if MODE == "import":
    raise RuntimeError("broken deploy")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if MODE == "fail":
            await send({"type": "lifespan.startup.failed", "message": "no database"})
            return
        if MODE == "die":
            os._exit(1)
        if MODE == "hang":
            await asyncio.sleep(3600)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"] == "/work":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        while not pathlib.Path(__file__).with_name("finish").exists():
            await asyncio.sleep(0.02)
        await send({"type": "websocket.send", "text": "done"})
    else:
        await pid_app(scope, receive, send)
"""


@dataclass
class Parent:
    """The parent process of two workers."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path
    log_file: Path

    def start_as(self, mode: str) -> None:
        (self.folder / "mode").write_text(mode)

    async def logged(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(60):
            while self.log_file.read_text().count(text) < times:
                assert self.process.returncode is None, self.log_file.read_text()
                await asyncio.sleep(0.05)

    async def pids(self, without: Collection[int] = ()) -> set[int]:
        """Two workers that serve and are not among ``without``."""
        found: set[int] = set()
        async with asyncio.timeout(50):
            while len(found) < 2:
                # At the same time: one after the other, all may reach the same worker.
                found.update(await asyncio.gather(*(pid_behind(self.port) for _ in range(8))))
                found -= {*without, os.getpid()}
        return found

    async def ends(self) -> None:
        self.process.terminate()
        assert await asyncio.wait_for(self.process.wait(), 30) == 0


def write_app(folder: Path, mode: str) -> None:
    """Write the app, and how it starts."""
    (folder / "deployed_app.py").write_text(APP)
    (folder / "mode").write_text(mode)


@asynccontextmanager
async def two_workers(mode: str = "good", drain_timeout: float = 20.0) -> AsyncIterator[Parent]:
    with tempfile.TemporaryDirectory() as folder:
        write_app(Path(folder), mode)
        port = free_port()
        code = f"""
import sys
sys.path.insert(0, {folder!r})
from telex.server import run
if __name__ == "__main__":
    run("deployed_app:app", port={port}, workers=2, drain_timeout={drain_timeout})
"""
        async with script(code) as (process, log_file):
            yield Parent(process, port, Path(folder), log_file)


@pytest.mark.parametrize("mode", ["import", "fail", "die"])
async def test_new_code_that_does_not_start_leaves_the_old_workers(mode: str) -> None:
    async with two_workers() as parent:
        await opened(parent.port)
        old = await parent.pids()
        parent.start_as(mode)
        parent.process.send_signal(signal.SIGHUP)
        await parent.logged("keeping the old workers")
        assert await parent.pids() == old
        parent.start_as("good")
        parent.process.send_signal(signal.SIGHUP)
        await parent.pids(without=old)
        await parent.ends()


@pytest.mark.parametrize("mode", ["import", "fail", "die"])
async def test_workers_that_die_again_and_again_are_started_with_growing_pauses(mode: str) -> None:
    async with two_workers() as parent:
        await opened(parent.port)
        old = await parent.pids()
        parent.start_as(mode)
        victim, survivor = sorted(old)
        os.kill(victim, signal.SIGKILL)
        await parent.logged("starting another in 1.0 s")
        assert await pid_behind(parent.port) == survivor
        parent.start_as("good")
        assert survivor in await parent.pids(without=(victim,))
        await parent.ends()


@pytest.mark.parametrize("mode", ["import", "fail", "die"])
async def test_workers_that_never_start_end_the_parent(mode: str) -> None:
    async with two_workers(mode) as parent:
        assert await asyncio.wait_for(parent.process.wait(), 30) == 3
        assert "could not start" in parent.log_file.read_text()


async def test_a_stop_lets_a_replaced_worker_finish_its_drain() -> None:
    async with two_workers() as parent:
        await opened(parent.port)
        async with connected(parent.port, "/work") as client:
            await client.send(frame(TEXT, b"work"))
            parent.process.send_signal(signal.SIGHUP)
            await parent.logged("Draining on SIGTERM")
            parent.process.terminate()
            await parent.logged("Draining on SIGTERM", times=2)
            (parent.folder / "finish").touch()
            assert (await client.read_frame()).payload == b"done"
        assert await asyncio.wait_for(parent.process.wait(), 30) == 0


async def test_a_dead_worker_is_replaced_while_another_drains() -> None:
    async with two_workers(drain_timeout=60.0) as parent:
        await opened(parent.port)
        old = await parent.pids()
        async with AsyncExitStack() as stack:
            for _ in range(8):  # both workers have some, so the first that is replaced drains for long
                client = await stack.enter_async_context(connected(parent.port, "/work"))
                await client.send(frame(TEXT, b"work"))
            parent.process.send_signal(signal.SIGHUP)
            await parent.logged("Draining on SIGTERM")
            (new,) = await parent.pids() - old
            os.kill(new, signal.SIGKILL)
            await parent.logged("died with status -9")
            await parent.pids(without=(new,))
            (parent.folder / "finish").touch()
        await parent.ends()


async def test_a_worker_whose_start_hangs_is_given_up_at_the_next_signal() -> None:
    async with two_workers() as parent:
        await opened(parent.port)
        old = await parent.pids()
        parent.start_as("hang")
        parent.process.send_signal(signal.SIGHUP)
        await parent.logged("Waiting for application startup", times=3)
        assert await parent.pids() == old
        parent.start_as("good")
        parent.process.send_signal(signal.SIGHUP)
        await parent.pids(without=old)
        await parent.ends()
