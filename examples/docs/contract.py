from typing import Annotated

import msgspec

from telex import AsyncAPI, Telex, websocket_listener


class Say(msgspec.Struct, tag="say"):
    """Says something to the whole room."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=500, examples=["good morning"])]


class Said(msgspec.Struct):
    number: int


class Joined(msgspec.Struct, tag="joined"):
    name: str


class Confirm(msgspec.Struct, tag="confirm"):
    question: str


class Answer(msgspec.Struct):
    yes: bool


class Muted(Exception):
    """You may not speak in this room."""


@websocket_listener("/rooms/{room:str}", errors=[Muted], pushes=Joined, asks={Confirm: Answer})
async def room(data: Say, room: str) -> Said:
    """Speaks in a room; the answer has the message's number."""
    if "shout" in data.text:
        raise Muted("quiet, please")
    return Said(len(data.text))


app = Telex([room], plugins=[AsyncAPI(title="Chat", version="1.4.0")])
