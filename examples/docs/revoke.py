import os

from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from telex import Channels, DefineMiddleware, NotAuthorizedException, Telex, WebSocket, websocket_listener
from telex.handlers import Handler

SESSIONS = {"phone-secret": "ada", "laptop-secret": "ada", "bo-secret": "bo"}  # a table, which all nodes read


class ByCookie(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = SESSIONS.get(conn.cookies.get("session", ""))
        return None if name is None else (AuthCredentials(), SimpleUser(name))


def logged_in(socket: WebSocket, _: Handler) -> None:
    if not socket.user.is_authenticated:
        raise NotAuthorizedException("log in first")


@websocket_listener("/echo", guards=[logged_in])
async def echo(data: str) -> str:
    return data


async def tell(request: Request) -> JSONResponse:
    """Tell a user something, wherever their pages are connected."""
    name = request.path_params["name"]
    await app.users.notify(name, {"type": "notice", "text": (await request.body()).decode()})
    return JSONResponse({"pages": await app.users.count(name)})


async def revoke(request: Request) -> JSONResponse:
    """Log a user out everywhere: first the table, so that nobody logs in with it, then the connections."""
    name = request.path_params["name"]
    for secret in [secret for secret, owner in SESSIONS.items() if owner == name]:
        del SESSIONS[secret]
    await app.users.close(name, 4403, "revoked")
    return JSONResponse({})


# Put your own check of who may do this before these two.
admin = Starlette(
    routes=[
        Route("/users/{name}/tell", tell, methods=["POST"]),
        Route("/users/{name}/revoke", revoke, methods=["POST"]),
    ]
)

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), channels=["news"])
app = Telex(
    [echo],
    plugins=[channels],
    middleware=[DefineMiddleware(AuthenticationMiddleware, backend=ByCookie())],
    http=admin,
)
