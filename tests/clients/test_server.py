"""The TypeScript client against Telex's own server: in Node, over restarts, and in Chromium."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from telex.channels import Keep, publisher
from tests.channels.brokers import Valkey
from tests.clients.node import INSTALL_WITHIN, SERVED, install, node, path_with_node, run
from tests.support.programs import TELEX, Program, program
from tests.support.proxy import TcpProxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_WITHIN)]

PATIENCE = 60.0
HISTORY = Keep(size=10_000, seconds=3600)
FOLLOW = str(Path(__file__).with_name("follow.mjs"))


@pytest.fixture
def server() -> Iterator[Program]:
    with program(TELEX, "run", "tests.clients.app:app", "--port", "0", "--drain-timeout", "1") as running:
        running.accepts(("127.0.0.1", running.port))
        yield running
        running.stop()
        assert "Traceback" not in running.log, running.log


def test_calls_streams_channels_and_routes(server: Program, tmp_path: Path) -> None:
    install()
    run("node", "build.js", "--tests", str(tmp_path))
    report = run(*node("--test", str(tmp_path / "server.test.mjs")), env={"TELEX_URL": server.url("")})
    assert "skipped 0" in report


def serve(stack: ExitStack, broker: Valkey) -> Program:
    env = {"CHANNELS_URL": broker.url}
    arguments = ("--port", "0", "--drain-timeout", "50")
    running = stack.enter_context(program(TELEX, "run", "tests.clients.app:app", *arguments, env=env))
    running.accepts(("127.0.0.1", running.port))
    return running


def follow(stack: ExitStack, *arguments: str) -> Program:
    command = node(FOLLOW, SERVED.as_uri(), *arguments)
    return stack.enter_context(program(*command, env={"PATH": path_with_node()}))


@pytest.fixture(scope="module")
def broker() -> Iterator[Valkey]:
    valkey = Valkey()
    try:
        valkey.start()
        yield valkey
    finally:
        valkey.remove()


@pytest.mark.broker
@pytest.mark.parametrize("how", ["the server restarts", "the line is cut"])
async def test_nothing_is_lost_and_nothing_comes_twice(broker: Valkey, how: str) -> None:
    """A client with a socket for the channel and one with a shared socket follow while somebody publishes."""
    room = how.replace(" ", "-")
    with ExitStack() as stack:
        first = serve(stack, broker)
        async with TcpProxy(first.port) as proxy, publisher(broker.url, history=HISTORY) as out:
            address = f"ws://127.0.0.1:{proxy.port}"
            followers = [
                follow(stack, f"{address}/rooms/{room}"),
                follow(stack, f"{address}/socket", f"/rooms/{room}"),
            ]
            for follower in followers:
                await asyncio.to_thread(follower.wait_for, '"present"')
            published = 0

            async def publish(count: int) -> None:
                nonlocal published
                for _ in range(count):
                    await out.publish(f"room:{room}", published)
                    published += 1
                    await asyncio.sleep(0.002)

            await publish(50)
            if how == "the line is cut":
                for attempt in range(2, 4):
                    proxy.cut()
                    await publish(50)
                    for follower in followers:
                        await asyncio.to_thread(follower.wait_for, '"open"', attempt)
            else:
                proxy.target = serve(stack, broker).port
                stopping = asyncio.ensure_future(asyncio.to_thread(first.stop, within=PATIENCE))
                while not stopping.done():
                    await publish(10)
            await publish(50)
            await out.publish(f"room:{room}", "end")
            for follower in followers:
                await asyncio.to_thread(follower.wait, PATIENCE)
                seen = [json.loads(line) for line in follower.log.splitlines()]
                values = [each for each in seen if not isinstance(each, dict)]
                assert values == [*range(published), "end"], follower.log
                assert not [each for each in seen if isinstance(each, dict) and each.get("type") == "gap"]
                if how == "the server restarts":
                    assert '"waiting"' not in follower.log


FLOW = """async () => {
  const { connect } = await import("/telex.client.js");
  const found = {};
  const socket = connect(`ws://${location.host}/socket`);
  const desk = socket.route("/desk");
  desk.answer("confirm", ({ what }) => ({ yes: what === "tea" }));
  found.sum = await desk.call({ type: "add", a: 2, b: 3 });
  found.answer = await desk.call({ type: "order", what: "tea" });
  found.bytes = [...await socket.route("/bytes").call(new Uint8Array([1, 2, 255]))];
  found.parts = [];
  for await (const n of socket.route("/count").stream(20)) found.parts.push(n);
  const staff = connect(`ws://${location.host}/staff`).route();
  found.refused = await staff.call("x").catch((error) => [error.code, error.closeCode, error.error.message]);
  const channel = socket.channel("/rooms/{room}", { room: "page" });
  found.events = [];
  const cutter = connect(`ws://${location.host}/cut`).route();
  await channel.route.call("one");
  for await (const event of channel) {
    if (event.type !== "event") continue;
    found.events.push(event.data);
    if (event.data === "one") {
      await cutter.notify("retry-after=0.05"); // the page moves to another connection
      void channel.route.call("two");
    }
    if (event.data === "two") break;
  }
  socket.close();
  found.status = socket.status.state;
  return found;
}"""


@pytest.mark.browser
async def test_a_page(chromium: str, server: Program) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        await page.goto(server.url("/", scheme="http"))
        found = await asyncio.wait_for(page.evaluate(f"({FLOW})()"), PATIENCE)
        await browser.close()
    assert found == {
        "sum": 5,
        "answer": True,
        "bytes": [255, 2, 1],
        "parts": list(range(20)),
        "refused": ["closed", 4403, "this is not yours"],
        "events": ["one", "two"],
        "status": "closed",
    }
