"""The table of close codes, the actions for codes outside of it, and the clients that are written from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from playwright.async_api import async_playwright

from scripts.docs_close_codes import as_javascript, as_typescript
from scripts.docs_sync import COMMAND, scripts, synced_script
from telex.cli.commands import telex
from telex.protocol.close_codes import CLOSE_CODES, AfterClose, after_close
from telex.status_codes import is_sendable_close_code


@pytest.mark.parametrize(
    ("codes", "after"),
    [
        ((1002, 1003, 1007, 1008, 1009, 4400, 4403, 4404, 4405, 4409, 4410, 4426), "never"),
        ((4401,), "refresh"),
        ((1012, 1013, 4408, 4425, 4429, 4503), "retry_after"),
        ((1001, 1005, 1006, 1011, 4500), "back_off"),
        ((1000,), "done"),
        ((4418, 4499), "never"),
        ((4502, 4599), "back_off"),
        ((3000, 3999, 4000, 4399, 4600, 4999), "application"),
        ((1004, 1015, 2999, 5000), "back_off"),
    ],
)
def test_what_a_client_does_after_a_close(codes: tuple[int, ...], after: AfterClose) -> None:
    assert {code: after_close(code) for code in codes} == dict.fromkeys(codes, after)


def test_every_row_is_a_code_that_a_client_can_see() -> None:
    assert all(is_sendable_close_code(code) or code in {1005, 1006} for code in CLOSE_CODES)


def test_the_command_prints_the_table_from_which_every_code_follows() -> None:
    printed = CliRunner().invoke(telex, ["close-codes"])
    table = json.loads(printed.output)
    assert printed.exit_code == 0

    def found(code: int) -> Any:
        known: dict[int, Any] = {row["code"]: row["after"] for row in table["codes"]}
        ranges = (each["after"] for each in table["ranges"] if each["first"] <= code <= each["last"])
        return known.get(code) or next(ranges, table["otherwise"])

    assert [found(code) for code in range(5001)] == [after_close(code) for code in range(5001)]
    assert all(row["meaning"] for row in table["codes"])


def test_the_clients_and_the_scripts_of_the_examples_have_the_table() -> None:
    having = set()
    for script in scripts():
        text = script.read_text("utf-8")
        assert text == synced_script(script), f"{script} is out of date: run {COMMAND} and commit what it writes"
        if as_javascript() in text or as_typescript() in text:
            having.add(script.name)
    assert having == {"close_codes.js", "reconnect.js", "close-codes.ts"}


@pytest.mark.browser
async def test_javascript_finds_the_same_for_every_code(chromium: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        await page.add_script_tag(content=as_javascript())
        found = await page.evaluate("Array.from({length: 5001}, (_, code) => afterClose(code))")
        await browser.close()
    assert found == [after_close(code) for code in range(5001)]
