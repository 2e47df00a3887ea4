"""The page on the contract: its example, and the part of the document that it shows."""

from __future__ import annotations

import json

from examples.docs import contract
from telex.contract.checks import check_document
from telex.contract.typescript import write_typescript
from telex.testing import AsyncTestClient
from tests.docs.pages import EXAMPLES


async def test_the_operation_that_the_page_shows() -> None:
    document = contract.app.asyncapi()
    shown = json.loads((EXAMPLES / "contract_operation.json").read_text("utf-8"))
    assert document["operations"]["rooms-room.receive.say"] == shown
    assert check_document(document) == []


def test_the_client_that_the_page_shows() -> None:
    shown = (EXAMPLES / "contract_client.ts").read_text("utf-8")
    assert shown == write_typescript(contract.app.asyncapi(), "contract"), "telex client examples.docs.contract:app"
    # tests/asyncapi/test_clients.py compiles it, with its use in contract_use.ts.


async def test_the_example_runs_and_serves_its_document() -> None:
    async with AsyncTestClient(contract.app) as client:
        served = (await client.get("/asyncapi.json")).json()
        assert served["info"] == {"title": "Chat", "version": "1.4.0"}
        async with client.websocket_connect("/rooms/7", subprotocols=["telex.v1"]) as session:
            assert await session.call({"type": "say", "text": "hi"}) == {"number": 2}
            assert session.hello["contract"] == served["x-telex-contract"]
