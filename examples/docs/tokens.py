import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from telex import Telex, websocket_listener


class Prompt(msgspec.Struct):
    text: str


class Overloaded(Exception):
    """The model has no capacity. Callers get the error ``overloaded``."""


async def model(prompt: str) -> AsyncGenerator[str, None]:
    """In place of the library of a language model, which yields tokens as they are computed."""
    if not prompt:
        raise Overloaded("try again in a minute")
    for word in f"You said: {prompt}".split(" "):
        yield f"{word} "
        await asyncio.sleep(0.02)


@websocket_listener("/ask", errors=[Overloaded], call_timeout=20)
async def ask(data: Prompt) -> AsyncGenerator[str, None]:
    """``call_timeout`` applies until the first token."""
    try:
        async with aclosing(model(data.text)) as tokens:
            async for token in tokens:
                yield token
    finally:
        ...  # runs at the end, after a cancel, and when the client leaves: count the tokens here


app = Telex([ask])
