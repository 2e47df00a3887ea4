from dataclasses import dataclass

from telex import State, Telex, WebSocket, websocket
from telex.exceptions import NotAuthorizedException
from telex.types import ASGIApp, Receive, Scope, Send


@dataclass(frozen=True)
class User:
    name: str


USERS = {"Bearer let-me-in": User("ada")}


class AuthenticationMiddleware:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        user = USERS.get(token)
        if user is None:
            raise NotAuthorizedException("a bearer token is needed", headers={"www-authenticate": "Bearer"})
        scope["user"], scope["auth"] = user, token
        await self.app(scope, receive, send)


@websocket("/me")
async def me(socket: WebSocket[User, str, State]) -> None:
    await socket.send_text(socket.user.name)


app = Telex([me], middleware=[AuthenticationMiddleware])
