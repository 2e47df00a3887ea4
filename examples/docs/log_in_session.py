import json
import time
from base64 import b64decode

from itsdangerous import BadSignature, TimestampSigner
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from telex import Authenticate, Identity, NotAuthorizedException, Telex, WebSocket, websocket_listener

SECRET = "change-me"  # noqa: S105 - yours comes from the environment
MAX_AGE = 14 * 24 * 3600
signer = TimestampSigner(SECRET)


async def log_in(request: Request) -> JSONResponse:
    """The page's own form. Check the password here."""
    request.session["user"] = (await request.json())["name"]
    return JSONResponse({})


def who(token: str) -> Identity[str]:
    """Whose session this is: read as Starlette writes it."""
    try:
        data, signed_at = signer.unsign(token, max_age=MAX_AGE, return_timestamp=True)
    except BadSignature:
        raise NotAuthorizedException("log in first") from None
    user = json.loads(b64decode(data)).get("user")
    if user is None:
        raise NotAuthorizedException("log in first")
    return Identity(user, expires_in=MAX_AGE - (time.time() - signed_at.timestamp()))


@websocket_listener("/me")
async def me(data: str, socket: WebSocket[str]) -> str:
    return f"{socket.user}: {data}"


pages = Starlette(
    routes=[Route("/log-in", log_in, methods=["POST"])],
    middleware=[Middleware(SessionMiddleware, secret_key=SECRET, max_age=MAX_AGE, https_only=True)],
)
app = Telex([me], authenticate=Authenticate(who, cookie="session"), http=pages)
