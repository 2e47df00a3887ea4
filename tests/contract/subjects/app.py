"""All of the subjects in one app, so that one process of each server serves every test."""

from __future__ import annotations

from typing import Any, Final

from telex import Multiplex, Telex, websocket_listener
from telex.types import Receive, Scope, Send
from tests.contract.subjects.calls import calls
from tests.contract.subjects.ends import ends
from tests.contract.subjects.errors import errors
from tests.contract.subjects.handshakes import guarded, guarded_below, handshakes
from tests.contract.subjects.journal import journal, probe, watched
from tests.contract.subjects.lifetimes import lifetimes
from tests.contract.subjects.limits import limits
from tests.contract.subjects.logins import logins
from tests.contract.subjects.messages import messages
from tests.contract.subjects.people import people
from tests.contract.subjects.refusals import refusals
from tests.contract.subjects.sending import sending
from tests.contract.subjects.strangers import strangers

journal.keep_log()


@websocket_listener("/control")
def control(data: str) -> str:
    """The connection that no other connection may affect."""
    return data


subjects: Final[list[Any]] = [
    control,
    messages,
    handshakes,
    errors,
    lifetimes,
    sending,
    strangers,
    ends,
    refusals,
    limits,
    calls,
]
open_to_all = Telex([probe, *subjects, people, logins, Multiplex("/multiplex", routes=subjects)])
PREFIXES: Final = {"guarded": guarded, "guarded-below": guarded_below}
watched.extend([open_to_all, *PREFIXES.values()])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of most tests, and others under a prefix each."""
    prefix = scope.get("path", "").split("/")[1:2]
    mounted = PREFIXES.get(prefix[0]) if prefix else None
    if mounted is None:
        await open_to_all(scope, receive, send)
    else:
        await mounted({**scope, "root_path": f"/{prefix[0]}"}, receive, send)
