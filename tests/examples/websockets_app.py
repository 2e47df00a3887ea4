"""Every file of ``examples/websockets`` as one ASGI app: the first part of a path names the file."""

from __future__ import annotations

import importlib
from pathlib import Path

from telex import Telex
from telex.types import Receive, Scope, Send
from tests.support.programs import ROOT

FOLDER = ROOT / "examples" / "websockets"


def names(folder: Path = FOLDER) -> list[str]:
    """The examples that there are."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def app_of(name: str) -> Telex:
    """The app of one example."""
    app = importlib.import_module(f"examples.websockets.{name}").app
    assert isinstance(app, Telex)
    return app


APPS = {name: app_of(name) for name in names()}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves ``/NAME/`` as the app of that name, mounted under ``/NAME``."""
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await send({"type": "lifespan.shutdown.complete"})
        return
    name = scope["path"].split("/")[1]
    await APPS[name]({**scope, "root_path": f"/{name}"}, receive, send)
