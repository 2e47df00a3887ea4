"""Channels send by public means: no private part of asyncio, and no server is known by the name of its module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "telex" / "channels"


def private_uses(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.split(".")[0] == "asyncio"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "asyncio":
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and (
            node.attr == "__module__" or (node.attr.startswith("_") and ast.unparse(node.value) in modules)
        ):
            yield node.attr


def test_delivery_and_recovery_use_no_private_part_of_asyncio() -> None:
    files = [*(SOURCE / "delivery").glob("*.py"), *(SOURCE / "recovery").glob("*.py"), *SOURCE.glob("*.py")]
    assert len(files) > 15
    assert {path.name: found for path in files if (found := list(private_uses(path.read_text("utf-8"))))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from asyncio.tasks import _enter_task",
        "import asyncio\nasyncio._get_running_loop()",
        "if type(send).__module__.startswith('uvicorn.'): ...",
    ],
)
def test_a_private_use_is_found(source: str) -> None:
    assert len(list(private_uses(source))) == 1
