"""The servers as fixtures: ``server`` is each of them, ``loop_server`` each that runs in the test's own loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.contract.servers import KINDS, Running, ServerKind
from tests.contract.site import SUBJECTS, Site, visited


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def server(request: pytest.FixtureRequest) -> ServerKind:
    """Each server, to run an app as a process: ``async with server.process("module:attribute") as running``."""
    kind: ServerKind = request.param
    return kind


@pytest.fixture(params=[kind for kind in KINDS if kind.serves_in_loop], ids=lambda kind: kind.name)
def loop_server(request: pytest.FixtureRequest) -> ServerKind:
    """Each server that runs an app object in the test's own loop: ``async with loop_server.loop(app) as running``."""
    kind: ServerKind = request.param
    return kind


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def subject_server() -> AsyncIterator[Callable[[ServerKind], Awaitable[Running]]]:
    """The process of a server that serves all subjects; it starts at the first use and lives as long as the worker."""
    started: dict[ServerKind, Running] = {}
    async with AsyncExitStack() as stack:

        async def of(kind: ServerKind) -> Running:
            if kind not in started:
                started[kind] = await stack.enter_async_context(kind.process(SUBJECTS))
            return started[kind]

        yield of


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=KINDS, ids=lambda kind: kind.name)
async def subjects(
    request: pytest.FixtureRequest, subject_server: Callable[[ServerKind], Awaitable[Running]]
) -> tuple[ServerKind, Running]:
    """Each server as one process that serves all subjects to all tests, whatever they do to it."""
    kind: ServerKind = request.param
    return kind, await subject_server(kind)


@pytest.fixture
async def site(subjects: tuple[ServerKind, Running]) -> AsyncIterator[Site]:
    """Each server with the subjects, as one test sees it; the postcondition is checked at the test's end."""
    async with visited(*subjects) as site:
        yield site
