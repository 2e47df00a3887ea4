"""The pages' JavaScript, in a real Chromium."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

from examples.docs import echo, hello, reconnect
from telex import Provide, Telex, WebSocket, websocket
from tests.contract.servers import Running
from tests.docs.pages import EXAMPLES
from tests.support.live import serving

pytestmark = pytest.mark.browser

PATIENCE = 10_000
"""Milliseconds that the page may take for anything."""


async def blank(_: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html><title>test</title>")


def app() -> Telex:
    return Telex(
        [echo.echo, hello.hello, reconnect.events, reconnect.write],
        dependencies={"log": Provide(reconnect.Log, use_cache=True)},
        http=Starlette(routes=[Route("/", blank)]),
    )


@asynccontextmanager
async def opened(chromium: str, running: Running) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(PATIENCE)
        await page.goto(running.url("/").replace("ws://", "http://"))
        yield page
        await browser.close()


@pytest.mark.parametrize(
    ("script", "path", "reply"), [("browser.js", "/echo", "hello"), ("hello.js", "/hello", "Hello, Ada!")]
)
async def test_the_first_lines(chromium: str, script: str, path: str, reply: str) -> None:
    source = (EXAMPLES / script).read_text()
    async with serving(app()) as running, opened(chromium, running) as page:
        async with page.expect_console_message(lambda message: message.type == "log") as logged:
            await page.add_script_tag(content=source.replace(f"ws://127.0.0.1:8000{path}", running.url(path)))
        assert (await logged.value).text == reply


async def test_a_client_that_comes_back(chromium: str) -> None:
    script = (EXAMPLES / "reconnect.js").read_text()
    telex = app()
    async with serving(telex) as running, opened(chromium, running) as page:
        await page.add_script_tag(content=script)
        await page.evaluate(
            "url => { window.seen = []; connect(url, event => window.seen.push(event.text)); }",
            running.url("/events"),
        )
        await write(running, "one")
        await page.wait_for_function("window.seen.length === 1")
        await telex.connections.drain(reason="retry-after=0.05")
        await write(running, "two")
        await page.wait_for_function("window.seen.length === 2")
        assert await page.evaluate("window.seen") == ["one", "two"]


@pytest.mark.parametrize(("code", "attempts"), [(4403, 1), (4401, 2), (4429, 3), (1011, 3), (1000, 1), (4001, 1)])
async def test_a_client_that_comes_back_where_the_code_allows_it(chromium: str, code: int, attempts: int) -> None:
    accepted = 0
    enough = asyncio.Event()

    @websocket("/events")
    async def refuse(socket: WebSocket) -> None:
        nonlocal accepted
        await socket.accept()
        accepted += 1
        if accepted < 3:
            await socket.close(code, "retry-after=0.01")
        else:
            enough.set()

    script = (EXAMPLES / "reconnect.js").read_text()
    telex = Telex([refuse], http=Starlette(routes=[Route("/", blank)]))
    async with serving(telex) as running, opened(chromium, running) as page:
        await page.add_script_tag(content=script)
        begin = "url => { window.tokens = 0; connect(url, () => {}, async () => { window.tokens += 1; }); }"
        if code == 1000:
            await page.evaluate(begin, running.url("/events"))
        elif attempts == 3:
            await page.evaluate(begin, running.url("/events"))
            await asyncio.wait_for(enough.wait(), PATIENCE / 1000)
        else:
            told = f"closed for good: {code} retry-after=0.01"
            async with page.expect_console_message(lambda message: message.text == told):
                await page.evaluate(begin, running.url("/events"))
        assert await page.evaluate("window.tokens") == (code == 4401)
    assert accepted == attempts


async def write(running: Running, text: str) -> None:
    async with connect(running.url("/write"), proxy=None) as client:
        await client.send(text)
