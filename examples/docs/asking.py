from typing import Literal

import msgspec

from telex import Telex, WebSocket, websocket_listener
from telex.exceptions import CallError, CallTimeout


class Delete(msgspec.Struct, tag="delete"):
    names: list[str]


class Confirm(msgspec.Struct, tag="confirm"):
    question: str


class Decision(msgspec.Struct):
    choice: Literal["yes", "no"]


@websocket_listener("/files")
async def files(data: Delete, socket: WebSocket) -> int:
    """Asks the person before it deletes, and returns how many files were deleted."""
    question = Confirm(f"Delete {len(data.names)} files?")
    try:
        decision = await socket.call(question, Decision, timeout=60)
    except (CallTimeout, CallError):
        return 0
    if decision.choice == "no":
        return 0
    for number, name in enumerate(data.names, 1):
        # delete the file
        await socket.notify({"deleted": name, "number": number})
    return len(data.names)


app = Telex([files])
