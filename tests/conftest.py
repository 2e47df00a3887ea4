"""What holds for all tests: the browser's presence, and that CI skips nothing."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.demands import browser_is_demanded, chromium_path, everything_is_demanded


def pytest_report_header() -> str:
    path = chromium_path()
    if path is None:
        return "browser: no Chromium is installed: the tests marked 'browser' are skipped (apt-get install chromium)"
    return f"browser: {path}"


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
