"""The rules for all tests: lanes, the browser's presence, leaks, and that CI skips nothing."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.contract.servers import ServerKind
from tests.support.demands import (
    browser_is_demanded,
    chromium_path,
    everything_is_demanded,
    is_left_out,
    note_running,
    programs_need_a_mark,
)

# They assert for tests: a failure there shows the compared values too.
pytest.register_assert_rewrite("tests.channels.cluster_load", "tests.channels.load")

# A busy machine is no fault of what is tested: tests have limits of their own.
settings.register_profile("telex", deadline=None)
settings.load_profile("telex")


def pytest_report_header() -> str:
    path = chromium_path()
    if path is None:
        return "browser: no Chromium is installed: the tests marked 'browser' are skipped (apt-get install chromium)"
    return f"browser: {path}"


BROKER_FIXTURES: Final = frozenset({"broker", "cluster", "running_broker", "running_cluster", "valkey"})
WITHOUT_BROKER: Final = "memory"
"""The value of the ``engine`` fixture that starts no broker."""


def pytest_configure() -> None:
    """Under nohup, SIGHUP is ignored, and the programs that tests start would inherit that."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.addaudithook(programs_need_a_mark)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks what runs on another server than Telex's, and what starts a broker through a fixture.

    A test that starts a broker itself carries the mark itself.
    """
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    for value in params.values():
        if isinstance(value, ServerKind) and value.mark is not None:
            item.add_marker(value.mark)
    if params.get("engine") == WITHOUT_BROKER:
        return
    if BROKER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.broker)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if is_left_out(collection_path, config.getoption("markexpr")) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects no garbage while tests are imported and collected, which are kept: that takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """Finds what was lost after it had been left out; pytest collects twice after this, which takes no time then."""
    gc.unfreeze()
    _collect()


def _collect() -> None:
    """Finds what is lost, and leaves out of later collections what is still in use: they would cost 20 ms each."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    note_running(item)
    try:
        return (yield)
    finally:
        note_running(None)


@pytest.fixture(autouse=True)
def leaks_are_found() -> Generator[None, None, None]:
    """Reports an unclosed transport in the test that made it, not in the one in which the collector finds it.

    It is set up first and torn down last, before pytest reports what could not be raised.
    """
    yield
    _collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if browser_is_demanded() or chromium_path() is not None:
        return
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.skip(reason="no Chromium is installed"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip into a failure where everything is demanded."""
    report = yield
    if report.skipped and everything_is_demanded() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself whole."""
    report = yield
    if report.skipped and everything_is_demanded():
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.fixture
def chromium() -> str:
    """The path of Chromium's executable, for Playwright's ``launch(executable_path=...)``."""
    path = chromium_path()
    assert path is not None, "no Chromium is installed: apt-get install chromium"
    return path
