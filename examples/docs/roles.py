import os

from telex import Channels, NotAuthorizedException, PermissionDeniedException, Telex, WebSocket, channel_listener
from telex.handlers import Handler
from telex.types import ASGIApp, Receive, Scope, Send

ROLES = {"ada": {"admin", "staff"}, "bo": {"staff"}}
MEMBERS = {"lobby": {"ada", "bo", "eve"}, "plans": {"ada"}}


def user_of(socket: WebSocket) -> str:
    name = socket.cookies.get("user")  # look it up in your sessions
    if name is None:
        raise NotAuthorizedException("log in first")
    return name


def has_role(socket: WebSocket, _: Handler) -> None:
    """The path names the role, the guard checks it: no handler runs for anybody else."""
    if socket.path_params["role"] not in ROLES.get(user_of(socket), ()):
        raise PermissionDeniedException("you do not have this role")


def is_member(socket: WebSocket, _: Handler) -> None:
    if user_of(socket) not in MEMBERS.get(socket.path_params["room"], ()):
        raise PermissionDeniedException("this room is not yours")


role = channel_listener("/roles/{role:str}", channel="role:{role}", guards=[has_role])
room = channel_listener("/rooms/{room:str}", channel="room:{room}", guards=[is_member], publish=str)

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), arbitrary_channels_allowed=True)


async def tell_admins(text: str) -> None:
    """Everyone with the role, on every node: they follow the channel of the role."""
    await channels.publish("role:admin", {"type": "alert", "text": text})


def with_user(inner: ASGIApp) -> ASGIApp:
    """Tells ``app.users`` whose connection it is; with ``authenticate=`` you do not need it."""

    async def authenticated(scope: Scope, receive: Receive, send: Send) -> None:
        scope["user"] = WebSocket(scope).cookies.get("user")
        await inner(scope, receive, send)

    return authenticated


async def take_role(name: str, lost: str) -> None:
    """Take a role away; 1012 lets the user's clients come back, and the guards decide again."""
    ROLES[name].discard(lost)
    await app.users.close(name, 1012, "your roles have changed")


app = Telex([role, room], plugins=[channels], middleware=[with_user])
