import hmac
from dataclasses import dataclass

from telex import (
    FromCookie,
    NotAuthorizedException,
    PermissionDeniedException,
    Provide,
    Router,
    Telex,
    WebSocket,
    websocket_listener,
)
from telex.handlers import Handler


@dataclass(frozen=True)
class User:
    name: str
    roles: frozenset[str] = frozenset()


USERS = {"ada-secret": User("ada", frozenset({"admin"})), "bob-secret": User("bob")}


async def find_user(session: FromCookie[str] = "") -> User:
    """The dependency that identifies the user; without a user the handshake is refused."""
    for secret, user in USERS.items():
        if hmac.compare_digest(secret.encode(), session.encode()):
            return user
    raise NotAuthorizedException("log in first")


async def needs_role(socket: WebSocket, handler: Handler) -> None:
    """The guard that reads the role from the handler's options."""
    user = await find_user(socket.cookies.get("session", ""))
    if handler.opt["role"] not in user.roles:
        raise PermissionDeniedException(f"this is for the role {handler.opt['role']}")


@websocket_listener("/me")
async def me(data: str, user: User) -> str:
    return f"{user.name}: {data}"


@websocket_listener("/shutdown", guards=[needs_role], opt={"role": "admin"})
async def shutdown(data: str, user: User) -> str:
    return f"{user.name} shuts down {data}"


app = Telex([Router("/account", route_handlers=[me, shutdown], dependencies={"user": Provide(find_user)})])
