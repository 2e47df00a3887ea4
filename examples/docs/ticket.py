import secrets
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from telex import NotAuthorizedException, Telex, websocket_listener

TICKETS: dict[str, tuple[str, float]] = {}


async def give_ticket(request: Request) -> JSONResponse:
    """An HTTP route that an authenticated page calls right before it connects."""
    ticket = secrets.token_urlsafe()
    TICKETS[ticket] = ("ada", time.monotonic() + 10)
    return JSONResponse({"ticket": ticket})


async def redeem(ticket: str = "") -> str:
    user, expires = TICKETS.pop(ticket, ("", 0.0))
    if time.monotonic() > expires:
        raise NotAuthorizedException("this ticket is used or too old")
    return user


@websocket_listener("/me", dependencies={"user": redeem})
async def me(data: str, user: str) -> str:
    return f"{user}: {data}"


app = Telex([me], http=Starlette(routes=[Route("/tickets", give_ticket, methods=["POST"])]))
