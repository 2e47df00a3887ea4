"""Takes the picture of the chat for README and docs: ``python -m scripts.docs_picture``, where the tests run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.docs_sync import ROOT
from tests.support.demands import chromium_path
from tests.support.programs import TELEX, program

PICTURE = ROOT / "docs" / "images" / "chat.png"
MEMBERS = {"Grace": "lobby", "Linus": "lobby", "Barbara": "lobby", "Edsger": "tea-room", "Ada": "lobby"}
LINES = (
    ("Grace", "Morning! The release notes are ready for review."),
    ("Ada", "Reading them now. Who runs the demo today?"),
    ("Linus", "I do. The second node is up as well."),
    ("Grace", "Good. Restart one later, and tell me what you notice."),
    ("Barbara", "I will open a room for the launch."),
    ("Ada", "Please do. I will bring the tea."),
)


def joined(browser: Browser, url: str, name: str, room: str) -> Page:
    """A page whose user has joined a room; the window has the picture's size."""
    page = browser.new_page(viewport={"width": 1100, "height": 620}, device_scale_factor=1.5)
    page.goto(url)
    page.fill("#join [name=name]", name)
    page.fill("#join [name=room]", room)
    page.click("#join button")
    expect(page.locator("#members li")).not_to_have_count(0)
    return page


def main() -> None:
    """Serves the chat, lets its members talk, and writes the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        env = {"CHAT_HISTORY": str(Path(folder, "history.sqlite3"))}
        with program(TELEX, "run", "examples.chat.app:app", "--port", "0", env=env) as running:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
            url = running.url(scheme="http")
            pages = {name: joined(browser, url, name, room) for name, room in MEMBERS.items()}
            for number, (name, text) in enumerate(LINES, 1):
                pages[name].fill("#say textarea", text)
                pages[name].click("#say button")
                expect(pages["Ada"].locator("#messages li")).to_have_count(number)
            pages["Linus"].type("#say textarea", "On my way")
            expect(pages["Ada"].locator("#typing")).not_to_be_empty()
            pages["Ada"].screenshot(path=PICTURE)
            browser.close()


if __name__ == "__main__":
    main()
