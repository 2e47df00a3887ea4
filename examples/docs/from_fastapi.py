from collections.abc import AsyncGenerator
from typing import Annotated, TypeAlias

from telex import FromHeader, Provide, Telex, websocket_listener


class Session:
    closed = False


async def open_session() -> AsyncGenerator[Session, None]:
    session = Session()
    yield session
    session.closed = True


SessionDep: TypeAlias = Annotated[Session, Provide(open_session)]


@websocket_listener("/items/{item_id:int}")
async def item(
    data: str,
    item_id: int,
    session: SessionDep,
    user_agent: FromHeader[str],
    page: int = 1,
) -> dict[str, object]:
    return {"item": item_id, "page": page, "agent": user_agent, "text": data, "closed": session.closed}


app = Telex([item])
