"""The chat's page in a real Chromium: two pages talk to each other through ``telex run``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.support.programs import TELEX, Program, program

pytestmark = pytest.mark.browser

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 20_000.0
"""Milliseconds that the page may take for anything."""


@contextmanager
def chat(tmp_path: Path, port: int = 0) -> Iterator[Program]:
    env = {"CHAT_HISTORY": str(tmp_path / "history.sqlite3")}
    arguments = ("--port", str(port), "--drain-timeout", "2")
    with program(TELEX, "run", "examples.chat.app:app", *arguments, env=env) as running:
        running.accepts(("127.0.0.1", running.port))
        yield running
        running.stop()
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def browser(chromium: str, tmp_path: Path) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, headless=True, args=ARGUMENTS
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        context.close()


def open_page(browser: BrowserContext, server: Program, problems: list[str]) -> Page:
    page = browser.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(server.url(scheme="http"))
    return page


def join(page: Page, name: str, room: str = "lobby") -> None:
    page.fill("#join [name=name]", name)
    page.fill("#join [name=room]", room)
    page.click("#join button")
    expect(page.locator("#status")).to_have_text("connected")


def say(page: Page, text: str) -> None:
    page.fill("#say textarea", text)
    page.press("#say textarea", "Enter")


def test_two_pages_talk_to_each_other(browser: BrowserContext, tmp_path: Path) -> None:
    problems: list[str] = []
    with chat(tmp_path) as server:
        ada, bo = open_page(browser, server, problems), open_page(browser, server, problems)
        join(ada, "Ada")
        join(bo, "Bo")
        for page in (ada, bo):
            expect(page.locator("#members .name")).to_have_text(["Ada", "Bo"])
        say(ada, "Hello Bo!")
        for page in (ada, bo):
            expect(page.locator(".message .text")).to_have_text(["Hello Bo!"])
        say(bo, "Hello Ada! <b>Not bold</b>")
        for page in (ada, bo):
            expect(page.locator(".message .text")).to_have_text(["Hello Bo!", "Hello Ada! <b>Not bold</b>"])
            expect(page.locator(".message strong")).to_have_text(["Ada", "Bo"])
            expect(page.locator("#rooms .figures")).to_have_text(["2 here, 2 messages"])
        bo.type("#say textarea", "h")
        expect(ada.locator("#typing")).to_have_text("Bo is writing …")
        picture = tmp_path / "chat.png"
        ada.screenshot(path=picture)
        assert picture.read_bytes().startswith(b"\x89PNG")
        bo.close()
        expect(ada.locator("#members .name")).to_have_text(["Ada"])
        expect(ada.locator("#messages .news").last).to_have_text("Bo left")
    assert problems == []


def test_rooms_and_names_can_be_changed(browser: BrowserContext, tmp_path: Path) -> None:
    problems: list[str] = []
    with chat(tmp_path) as server:
        ada, bo = open_page(browser, server, problems), open_page(browser, server, problems)
        join(ada, "Ada")
        join(bo, "Bo")
        bo.click("#rename")
        bo.fill("#renaming input", "Ada")
        bo.click("#renaming [value=rename]")
        expect(bo.locator("#messages .news").last).to_have_text("Ada is taken")
        bo.click("#rename")
        bo.fill("#renaming input", "Cy")
        bo.press("#renaming input", "Enter")
        expect(ada.locator("#members .name")).to_have_text(["Ada", "Cy"])
        bo.click("#rename")
        bo.fill("#renaming input", "Dee")
        bo.click("#renaming [type=button]")
        bo.fill("#open input", "quiet")
        bo.press("#open input", "Enter")
        expect(bo.locator("#room")).to_have_text("quiet")
        expect(bo.locator("#members .name")).to_have_text(["Cy"])
        expect(ada.locator("#members .name")).to_have_text(["Ada"])
        say(bo, "nobody hears me")
        ada.bring_to_front()  # a page in the background is drawn seldom, and Playwright waits for two frames
        ada.click("#rooms button:has-text('quiet')")
        expect(ada.locator(".message .text")).to_have_text(["nobody hears me"])
        expect(bo.locator("#members .name")).to_have_text(["Cy", "Ada"])
        ada.click("#leave")
        expect(ada.locator("#join")).to_be_visible()
        expect(bo.locator("#members .name")).to_have_text(["Cy"])
    assert problems == []


def test_a_message_that_is_refused_comes_back_with_its_error(browser: BrowserContext, tmp_path: Path) -> None:
    problems: list[str] = []
    with chat(tmp_path) as server:
        ada = open_page(browser, server, problems)
        join(ada, "Ada")
        ada.evaluate("document.querySelector('#say textarea').removeAttribute('maxlength')")
        say(ada, "x" * 2001)
        expect(ada.locator("#messages .news")).to_have_text("Not sent: Expected `str` of length <= 2000")
        expect(ada.locator("#say textarea")).to_have_value("x" * 2001)
        say(ada, "shorter")
        expect(ada.locator(".message .text")).to_have_text(["shorter"])
    assert problems == []


def test_a_page_comes_back_when_the_server_does(browser: BrowserContext, tmp_path: Path) -> None:
    with chat(tmp_path) as server:
        port = server.port
        ada = open_page(browser, server, [])
        join(ada, "Ada")
        say(ada, "before")
        expect(ada.locator(".message .text")).to_have_text(["before"])
    expect(ada.locator("#status")).not_to_have_text("connected")
    expect(ada.locator("#say button")).to_be_disabled()
    say(ada, "meanwhile")
    with chat(tmp_path, port):
        expect(ada.locator("#status")).to_have_text("connected", timeout=2 * PATIENCE)
        expect(ada.locator("#say textarea")).to_have_value("meanwhile")
        ada.click("#say button")
        expect(ada.locator(".message .text")).to_have_text(["before", "meanwhile"])
        expect(ada.locator("#members .name")).to_have_text(["Ada"])


def test_earlier_messages_are_shown_when_asked_for(browser: BrowserContext, tmp_path: Path) -> None:
    problems: list[str] = []
    with chat(tmp_path) as server:
        bo = open_page(browser, server, problems)
        join(bo, "Bo")
        for number in range(60):
            say(bo, f"message {number}")
        expect(bo.locator(".message")).to_have_count(60)
        ada = open_page(browser, server, problems)
        join(ada, "Ada")
        expect(ada.locator(".message")).to_have_count(50)
        ada.click(".earlier button")
        expect(ada.locator(".message .text")).to_have_text([f"message {number}" for number in range(60)])
        expect(ada.locator(".earlier")).to_have_count(0)
    assert problems == []
