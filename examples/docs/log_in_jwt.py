import time
from dataclasses import dataclass

import jwt

from telex import Authenticate, Identity, Multiplex, NotAuthorizedException, Telex, WebSocket, websocket_listener

KEY = "change-me, and make it at least 32 bytes long"  # yours comes from the environment
AUDIENCE = "https://chat.example.com"


@dataclass(frozen=True)
class User:
    id: str
    roles: frozenset[str] = frozenset()


def who(token: str) -> Identity[User]:
    """Whose token this is. Name the algorithm: a token must not choose how it is checked."""
    try:
        claims = jwt.decode(token, KEY, algorithms=["HS256"], audience=AUDIENCE, options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError:
        raise NotAuthorizedException("the token is not valid") from None
    user = User(claims["sub"], frozenset(claims.get("roles", ())))
    return Identity(user, expires_in=claims["exp"] - time.time())


def is_admin(socket: WebSocket[User]) -> bool:
    return "admin" in socket.user.roles


@websocket_listener("/me")
async def me(data: str, socket: WebSocket[User]) -> str:
    return f"{socket.user.id}: {data}"


@websocket_listener("/shutdown", guards=[is_admin])
async def shutdown(data: str, socket: WebSocket[User]) -> str:
    return f"{socket.user.id} shuts down {data}"


app = Telex(
    [me, shutdown, Multiplex("/socket", routes=[me, shutdown])],
    authenticate=Authenticate(who, bearer=True, subprotocol=True),
)
