from collections.abc import AsyncGenerator, Generator

from telex import Provide, Telex, websocket_listener

LOG: list[str] = []


class Settings:
    """Made once for the app."""


async def open_session(settings: Settings) -> AsyncGenerator[str, None]:
    """Made once a connection, and cleaned up after ``on_disconnect``."""
    LOG.append("session opened")
    yield "session"
    LOG.append("session closed")


def begin(session: str, data: str) -> Generator[str, None, None]:
    """Made for each message, and cleaned up after its reply; it may even see the message."""
    LOG.append(f"begin {data}")
    try:
        yield f"transaction in {session}"
    except ValueError:
        LOG.append(f"roll back {data}")
        raise
    else:
        LOG.append(f"commit {data}")


@websocket_listener("/")
async def work(data: str, transaction: str) -> str:
    if data == "bad":
        raise ValueError(data)
    return f"{data} in {transaction}"


app = Telex(
    [work],
    dependencies={
        "settings": Provide(Settings, use_cache=True),
        "session": Provide(open_session),
        "transaction": Provide(begin, scope="message"),
    },
    exception_handlers={ValueError: lambda socket, error: "refused"},
)
