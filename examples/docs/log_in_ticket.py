import secrets
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from telex import Authenticate, Identity, NotAuthorizedException, Telex, WebSocket, websocket_listener

VALID_FOR = 10
tickets: dict[str, tuple[str, float]] = {}
"""Whose each ticket is, and when it expires, the oldest first. With several processes: SET EX and GETDEL of Redis."""


async def give_ticket(request: Request) -> Response:
    """An HTTP route that a logged-in page calls right before it connects. Find the user as your other pages do."""
    user = request.headers.get("x-user", "")
    if not user:
        return Response(status_code=401)
    now = time.monotonic()
    while tickets and next(iter(tickets.values()))[1] < now:
        del tickets[next(iter(tickets))]
    ticket = secrets.token_urlsafe()
    tickets[ticket] = user, now + VALID_FOR
    return JSONResponse({"ticket": ticket})


def redeem(token: str) -> Identity[str]:
    user, expires_at = tickets.pop(token, ("", 0.0))
    if not user or time.monotonic() > expires_at:
        raise NotAuthorizedException("this ticket was used, or is too old")
    return Identity(user, expires_in=3600)


@websocket_listener("/me")
async def me(data: str, socket: WebSocket[str]) -> str:
    return f"{socket.user}: {data}"


app = Telex(
    [me],
    authenticate=Authenticate(redeem, query="ticket"),
    http=Starlette(routes=[Route("/tickets", give_ticket, methods=["POST"])]),
)
