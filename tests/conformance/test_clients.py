"""The TypeScript client passes all scenarios; each of these mutants of it fails one."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from telex.conformance.runner import Result, run
from telex.conformance.scenarios import load
from tests.clients.node import CLIENT, INSTALL_WITHIN, SERVED, install, node, path_with_node
from tests.clients.node import run as run_in_node
from tests.support.programs import TELEX, output_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_WITHIN + 100)]


class Mutant(NamedTuple):
    """One line of the client that is wrong, and the scenario that shows it."""

    scenario: str
    file: str
    right: str
    wrong: str


MUTANTS = [
    Mutant("calls/ids-rise", "session.ts", "const id = ++this.#lastId;", "const id = (this.#lastId = 1);"),
    Mutant("calls/credit-of-calls", "session.ts", "this.#credit > 0", "true"),
    Mutant("calls/timeout", "outgoing.ts", '_send({ type: "cancel", id: this.#id })', "_isOpen"),
    Mutant("calls/parts", "route.ts", "outgoing._more(PARTS / 2);", ";"),
    Mutant("calls/ping", "connection.ts", 'this._send({ type: "pong" });', ";"),
    Mutant(
        "calls/unknown-frames", "frames.ts", "} catch {\n    return undefined;", "} catch (error) {\n    throw error;"
    ),
    Mutant("reconnect/cut", "session.ts", "each._lose();", ";"),
    Mutant("reconnect/retry-after", "back-off.ts", "1000 * Number(found[1])", "Number(found[1])"),
    Mutant("reconnect/final-4499", "close-codes.ts", '[4400, 4499, "never"]', '[4400, 4499, "back_off"]'),
    Mutant("reconnect/final-4403", "socket.ts", "this.#finish(code, reason, error);\n  }", "}"),
    Mutant("reconnect/goaway", "socket.ts", "old?._retire();", 'old?._end(1000, "");'),
    Mutant("reconnect/goaway", "connection.ts", 'this._end(1000, "");\n    }', "}"),
    Mutant("tokens/refresh-once", "socket.ts", "this.#isRefreshed = true;", ";"),
    Mutant(
        "tokens/renewal",
        "socket.ts",
        "this.#renewAfter(connection, (frame.data as Frame | undefined)?.expires_in);",
        ";",
    ),
    Mutant(
        "channels/resume", "channel.ts", "this._since = frame.position ?? this._since;\n        this.#put", "this.#put"
    ),
    Mutant(
        "channels/quiet-channel", "channel.ts", "frame.position ?? this._since;\n        if", "this._since;\n        if"
    ),
    Mutant("channels/goaway", "channel.ts", "this._since !== undefined || session._isOpen", "session._isOpen"),
    Mutant(
        "channels/load",
        "channel.ts",
        "this.#put([frame, session]);\n        this.#load();",
        "this.#put([frame, session]);",
    ),
    Mutant("routes/credit", "session.ts", 'this._send({ type: "credit", n: PUSH_CREDIT / 2 });', ";"),
    Mutant("routes/close", "session.ts", "if (this.#isOver) return;", ""),
]


def adapter(module: Path) -> list[str]:
    return node(str(CLIENT / "conformance.js"), str(module))


@pytest.fixture(autouse=True)
def with_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", path_with_node())


async def test_the_typescript_client_passes_all() -> None:
    failed: list[Result] = []
    results = await run(adapter(SERVED), load(), lambda result: failed.append(result) if result.problem else None)
    assert failed == []
    assert len(results) > 50


def build(mutant: Mutant, folder: Path) -> Path:
    """The client with one line that is wrong."""
    source = folder / "src"
    shutil.copytree(CLIENT / "src", source)
    file = source / mutant.file
    text = file.read_text("utf-8")
    assert mutant.right in text, f"{mutant.file} has no {mutant.right!r} any more: mend the mutant"
    file.write_text(text.replace(mutant.right, mutant.wrong, 1), "utf-8")
    built = folder / "client.js"
    esbuild = str(CLIENT / "node_modules" / ".bin" / "esbuild")
    run_in_node(
        esbuild, str(source / "index.ts"), "--bundle", "--format=esm", "--log-level=error", f"--outfile={built}"
    )
    return built


async def test_each_mutant_fails_its_scenario(tmp_path: Path) -> None:
    await asyncio.to_thread(install)
    scenarios = {each.name: each for each in load()}
    places = asyncio.Semaphore(4)

    async def try_one(number: int, mutant: Mutant) -> str:
        async with places:
            folder = tmp_path / str(number)
            built = await asyncio.to_thread(build, mutant, folder)
            [result] = await run(adapter(built), [scenarios[mutant.scenario]], lambda _: None, patience=3)
            return result.problem

    problems = await asyncio.gather(*(try_one(number, mutant) for number, mutant in enumerate(MUTANTS)))
    alive = [mutant for mutant, problem in zip(MUTANTS, problems, strict=True) if not problem]
    assert alive == [], "\n".join(map(str, alive))


def test_the_command_reports_what_fails(tmp_path: Path) -> None:
    broken = tmp_path / "adapter.py"
    broken.write_text("import sys\nsys.stdin.readline()\nprint('hello')\n")
    done = output_of(TELEX, "conformance", "--only", "calls/messages", "--", sys.executable, str(broken))
    assert done.returncode == 1
    assert "failed  calls/messages: Messages of the server reach the application." in done.stdout
    assert "0 of 1 scenarios passed" in done.stdout
