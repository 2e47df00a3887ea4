import logging
import time

from telex import DefineMiddleware, Telex, websocket_listener
from telex.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("chat.timing")


class TimingMiddleware:
    """Logs how long a connection lasted and how many messages it took."""

    def __init__(self, app: ASGIApp, label: str) -> None:
        self.app = app
        self.label = label

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, received = time.monotonic(), 0

        async def counting_receive() -> Message:
            nonlocal received
            event = await receive()
            received += event["type"] == "websocket.receive"
            return event

        try:
            await self.app(scope, counting_receive, send)
        finally:
            logger.info("%s: %d messages in %.1f s", self.label, received, time.monotonic() - started)


@websocket_listener("/echo")
async def echo(data: str) -> str:
    return data


app = Telex([echo], middleware=[DefineMiddleware(TimingMiddleware, label="chat")])
