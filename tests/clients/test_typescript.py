"""The TypeScript client: its own tests, its types, its size, and the built file that the Python package serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.node import CLIENT, INSTALL_WITHIN, SERVED, install, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(INSTALL_WITHIN + 100)]


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    install()


def test_its_own_tests() -> None:
    report = run("npm", "test")
    passed = re.search(r"^\S pass (\d+)$", report, re.MULTILINE)
    assert passed is not None, report
    assert int(passed[1]) > 70


def test_it_compiles_with_strict_types() -> None:
    assert '"strict": true' in (CLIENT / "tsconfig.json").read_text("utf-8")
    run("npm", "run", "check")


def test_its_size() -> None:
    report = run("npm", "run", "size")
    size = re.search(r"(\d+) of 8192 bytes", report)
    assert size is not None, report
    assert int(size[1]) <= 8192


def test_the_file_in_the_package_is_what_the_build_writes(tmp_path: Path) -> None:
    built = tmp_path / "telex.client.js"
    run("npm", "run", "build", "--", str(built))
    assert built.read_text("utf-8") == SERVED.read_text("utf-8"), "run `npm run build` in clients/typescript and commit"
    index = (CLIENT / "dist" / "index.d.ts").read_text("utf-8")
    assert "export declare function connect(url: string" in index


def test_the_lock_file_names_no_registry() -> None:
    lock = (CLIENT / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 5
