"""All of the subjects in one app, so that one process of each server serves every test."""

from __future__ import annotations

from telex import Telex, websocket_listener
from tests.contract.subjects.journal import journal, probe, watched
from tests.contract.subjects.messages import messages

journal.keep_log()


@websocket_listener("/control")
def control(data: str) -> str:
    """The connection that nothing which happens elsewhere may disturb."""
    return data


app = Telex([control, probe, messages])
watched.append(app)
