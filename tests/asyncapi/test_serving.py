"""The document over HTTP, in ``hello``, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from telex import ImproperlyConfiguredException, Multiplex, NotAuthorizedException, Telex, websocket_listener
from telex.cli.commands import telex as command
from telex.contract.document import to_json
from telex.contract.serving import AsyncAPI
from telex.testing import AsyncTestClient
from tests.asyncapi.app import app as everything

click_testing = pytest.importorskip("click.testing")


@websocket_listener("/echo")
def echo(data: str) -> str:
    return data


async def get(app: Telex, path: str, **options: Any) -> Any:
    async with AsyncTestClient(app) as client:
        return await client.get(path, **options)


async def test_the_document_is_served_as_json_and_as_yaml() -> None:
    app = Telex([echo], plugins=[AsyncAPI(title="Echo")], http=PlainTextResponse("other"))
    found = await get(app, "/asyncapi.json")
    assert (found.status_code, found.headers["content-type"]) == (200, "application/json")
    assert found.text == to_json(app.asyncapi())
    assert (await get(app, "/asyncapi.yaml")).text.startswith("asyncapi: 3.1.0\n")
    assert (await get(app, "/asyncapi")).text == "other"


async def test_without_the_plugin_only_a_debugged_app_serves_it() -> None:
    assert (await get(Telex([echo]), "/asyncapi.json")).status_code == 404
    assert (await get(Telex([echo], debug=True), "/asyncapi.json")).status_code == 200
    silent = Telex([echo], debug=True, plugins=[AsyncAPI(path=None)])
    assert (await get(silent, "/asyncapi.json")).status_code == 404


async def test_guards_refuse() -> None:
    async def members(connection: HTTPConnection) -> None:
        if connection.headers.get("authorization") != "me":
            raise NotAuthorizedException("who are you", headers={"WWW-Authenticate": "Bearer"})

    def nobody(_: HTTPConnection) -> bool:
        return False

    app = Telex([echo], plugins=[AsyncAPI(path="/docs", guards=[members])])
    refused = await get(app, "/docs.json")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert (await get(app, "/docs.json", headers={"authorization": "me"})).status_code == 200
    assert (await get(Telex([echo], plugins=[AsyncAPI(guards=[nobody])]), "/asyncapi.json")).status_code == 403


async def test_it_is_only_read() -> None:
    async with AsyncTestClient(Telex([echo], debug=True)) as client:
        assert (await client.post("/asyncapi.json")).status_code == 405


def test_what_the_plugin_does_not_take() -> None:
    def guard(connection: HTTPConnection, handler: object) -> None: ...

    with pytest.raises(ImproperlyConfiguredException, match="begin the path with '/'"):
        AsyncAPI(path="docs")
    with pytest.raises(ImproperlyConfiguredException, match="takes the connection and nothing else"):
        AsyncAPI(guards=[guard])


async def test_hello_has_the_hash() -> None:
    app = Telex([echo, Multiplex("/socket", routes=[echo])])
    assert app.contract() == app.asyncapi()["x-telex-contract"]
    async with AsyncTestClient(app) as client:
        for path in ("/echo", "/socket"):
            async with client.websocket_connect(path, subprotocols=["telex.v1"]) as session:
                assert session.hello["contract"] == app.contract()


# -- the command


def run(*arguments: str) -> Any:
    return click_testing.CliRunner().invoke(command, ["asyncapi", "tests.asyncapi.app:app", *arguments])


def test_the_command_writes_and_checks(tmp_path: Path) -> None:
    assert run().output == to_json(everything.asyncapi())
    for name in ("a.json", "a.yaml"):
        file = tmp_path / name
        assert run("--out", str(file)).exit_code == 0
        assert run("--check", str(file)).exit_code == 0
    assert json.loads(run("--version", "3.0.0").output)["asyncapi"] == "3.0.0"


def test_a_file_that_is_not_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(to_json(everything.asyncapi()).replace('"1.4.0"', '"1.3.0"'))
    result = run("--check", str(file))
    assert result.exit_code == 1
    assert f"write it with telex asyncapi tests.asyncapi.app:app --out {file}" in result.output
    assert '-    "version": "1.3.0"' in result.output
    assert run("--check", str(tmp_path / "nothing")).exit_code == 1
