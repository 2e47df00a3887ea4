"""The pages' JavaScript, in a real Chromium."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

from examples.docs import asking, calls, echo, hello, many_rooms, reconnect, tokens
from telex import Multiplex, Provide, Telex, WebSocket, websocket
from telex.testing import AsyncTestClient
from tests.contract.servers import Running
from tests.docs.pages import EXAMPLES
from tests.support.live import serving

pytestmark = pytest.mark.browser

PATIENCE = 20_000
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


async def add(page: Page, running: Running, *scripts: str) -> None:
    """Run scripts of the pages, with the address of the server that runs."""
    for script in scripts:
        source = (EXAMPLES / script).read_text().replace("ws://127.0.0.1:8000/", running.url("/"))
        await page.add_script_tag(content=source)


def with_page(*handlers: Any, **options: Any) -> Telex:
    return Telex([*handlers], http=Starlette(routes=[Route("/", blank)]), **options)


async def test_calls_of_a_page(chromium: str) -> None:
    async with serving(with_page(calls.Shop)) as running, opened(chromium, running) as page:
        await add(page, running, "calls.js", "calls_use.js")
        assert await page.evaluate("order('tea', 2)") == "order 1, 1 left"
        assert await page.evaluate("order('tea', 2)") == "only 1 left"
        refused = "order('tea', 100).catch((error) => [error.code, error.path])"
        assert await page.evaluate(refused) == ["invalid_message", "$.count"]
        assert await page.evaluate("shop.notify({type: 'restock', article: 'cake', count: 5})") is None
        assert await page.evaluate("order('cake', 1)") == "order 2, 4 left"
        lost = "shop.ready.then(() => { shop.socket.close(); return shop.call(1); }).catch((error) => error.code)"
        assert await page.evaluate(lost) == "connection_lost"
        assert await page.evaluate("shop.call(1).catch((error) => error.code)") == "connection_lost"


async def test_a_page_is_asked(chromium: str) -> None:
    async with serving(with_page(asking.files)) as running, opened(chromium, running) as page:
        await add(page, running, "calls.js", "asking_use.js")
        call = "files.call({type: 'delete', names: ['a', 'b']})"
        page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        assert await page.evaluate(call) == 2
        page.once("dialog", lambda dialog: asyncio.ensure_future(dialog.dismiss()))
        assert await page.evaluate(call) == 0
        await page.evaluate("files.onquestion = async () => { throw new Error('not now'); }; null")
        assert await page.evaluate(call) == 0


async def test_a_page_shows_tokens_and_cancels(chromium: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    three = asyncio.Event()

    async def model(prompt: str) -> AsyncIterator[str]:
        try:
            for number in itertools.count() if prompt == "endless" else range(100):
                yield f"{number} "
                await asyncio.sleep(0)
        finally:
            ended.append(prompt)
            if len(ended) == 3:
                three.set()

    monkeypatch.setattr(tokens, "model", model)
    async with serving(with_page(tokens.ask)) as running, opened(chromium, running) as page:
        await add(page, running, "calls.js", "tokens_use.js")
        begin = "window.shown = ''; new Promise((begun) => { window.first = ask('endless', begun); })"
        assert await page.evaluate(begin) == "0 "  # a call that is aborted before the connection opens is never made
        await page.evaluate("ask('short', (token) => { window.shown += token; })")
        assert (await page.evaluate("window.shown")).split() == [str(number) for number in range(100)]
        assert await page.evaluate("window.first") is None
        left = "(async () => { for await (const token of assistant.stream({text: 'endless'})) return token; })()"
        assert await page.evaluate(left) == "0 "
        called = await page.evaluate("assistant.call({text: 'short'}).catch((error) => error.message)")
        assert called == "the answer has parts: use stream()"
        await asyncio.wait_for(three.wait(), PATIENCE / 1000)
        assert ended == ["endless", "short", "endless"]  # the last one waits for credit


async def test_a_page_is_in_many_rooms(chromium: str) -> None:
    telex = with_page(
        many_rooms.room, many_rooms.search, Multiplex("/socket", routes=Multiplex.ALL), plugins=[many_rooms.channels]
    )
    async with AsyncTestClient(telex), serving(telex) as running, opened(chromium, running) as page:
        await add(page, running, "many_rooms.js", "many_rooms_use.js")
        await page.evaluate(
            "window.shown = []; window.show = (room, text) => window.shown.push(room + ': ' + text); null"
        )
        await page.evaluate("join('lobby', show).then((say) => { window.say = say; })")
        await page.evaluate("join('library', show).then((say) => { window.read = say; })")
        refused = "join('staff', show).catch((error) => [error.status, error.code, error.message])"
        assert await page.evaluate(refused) == [403, "permission_denied", "this room is not yours"]
        for number in range(100):  # more than the credit of a route
            await many_rooms.channels.publish("room:lobby", many_rooms.Say(str(number)))
        await page.wait_for_function("window.shown.length === 100")
        await page.evaluate("say('hi'); read('quiet')")
        await page.wait_for_function("window.shown.length === 102")
        shown = await page.evaluate("window.shown")
        assert shown[:100] == [f"lobby: {number}" for number in range(100)]
        assert sorted(shown[100:]) == ["library: quiet", "lobby: hi"]


async def write(running: Running, text: str) -> None:
    async with connect(running.url("/write"), proxy=None) as client:
        await client.send(text)
