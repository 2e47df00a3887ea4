"""Runs the examples of the pages on DTOs and checks the statements of these pages."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.dto import accounts, nested, patch, pets, prices
from telex.testing import TestClient


def test_marks_and_names() -> None:
    with TestClient(accounts.app) as client, client.websocket_connect("/accounts") as socket:
        socket.send_json({"userName": "root", "password": "secret", "isAdmin": True, "riskScore": 9})
        assert socket.receive_json() == {"userName": "root", "isAdmin": True}
        socket.send_json({"userName": "ada", "password": "secret", "isAdmin": True})
        assert socket.receive_json() == {"userName": "ada", "isAdmin": False}
        socket.send_json({"userName": 5, "password": "secret"})
        assert socket.receive_json()["error"]["path"] == "$.userName"


def test_nested_paths() -> None:
    sent = {"name": "Ada", "address": {"street": "Main", "door_code": "1"}, "pets": [{"name": "Rex", "chip_number": 4}]}
    with TestClient(nested.app) as client, client.websocket_connect("/people") as socket:
        socket.send_json(sent)
        assert socket.receive_json() == {
            "name": "Ada",
            "address": {"streetName": "Main"},
            "pets": [{"name": "Rex"}],
        }


def test_data_and_partial_data() -> None:
    with TestClient(patch.app) as client:
        with client.websocket_connect("/tasks") as socket:
            socket.send_json({"id": 99, "title": "Write"})
            task = socket.receive_json()
            assert task == {"id": task["id"], "title": "Write", "tags": []}
            assert task["id"] != 99
        with client.websocket_connect(f"/tasks/{task['id']}") as socket:
            socket.send_json({"tags": ["now"]})
            assert socket.receive_json() == {**task, "tags": ["now"]}


def test_unions() -> None:
    with TestClient(pets.app) as client, client.websocket_connect("/pets") as socket:
        socket.send_json({"kind": "dog", "barksAt": "cats"})
        socket.send_json({"kind": "cat", "livesLeft": 9})
        assert socket.receive_json() == {"kind": "cat", "livesLeft": 9}


def test_streams() -> None:
    with TestClient(prices.app) as client, client.websocket_connect("/prices") as socket:
        assert socket.receive_json() == {"symbol": "ADA", "lastPrice": 36.5}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module with its own database."""
    monkeypatch.setitem(os.environ, "LIBRARY", f"sqlite:///{tmp_path / 'library.sqlite3'}")
    monkeypatch.delitem(sys.modules, "examples.dto.library", raising=False)  # other tests import every example
    module = importlib.import_module("examples.dto.library")
    yield module
    module.engine.dispose()


def test_mapped_classes(library: Any) -> None:
    with TestClient(library.app) as client, client.websocket_connect("/authors") as socket:
        socket.send_json({"id": 7, "fullName": "Ada", "email": "ada@example.com", "books": [{"title": "Notes"}]})
        assert socket.receive_json() == {"id": 1, "fullName": "Ada", "books": [{"id": 1, "title": "Notes"}]}
