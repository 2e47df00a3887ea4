import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from telex import Authenticate, Channels, Identity, NotAuthorizedException, Telex, websocket_listener

SESSIONS = {"phone-secret": "ada", "laptop-secret": "ada", "bo-secret": "bo"}  # a table, which all nodes read


async def who(token: str) -> Identity[str]:
    name = SESSIONS.get(token)
    if name is None:
        raise NotAuthorizedException("log in first")
    return Identity(name)


@websocket_listener("/echo")
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

app = Telex(
    [echo],
    authenticate=Authenticate(who, cookie="session"),
    plugins=[Channels(os.environ.get("CHANNELS_URL", "memory://"), channels=["news"])],
    http=admin,
)
