import os

from telex import Authenticate, Channels, Identity, PermissionDeniedException, Telex, WebSocket, channel_listener
from telex.handlers import Handler

ROLES = {"ada": {"admin", "staff"}, "bo": {"staff"}}
MEMBERS = {"lobby": {"ada", "bo", "eve"}, "plans": {"ada"}}


def who(token: str) -> Identity[str]:
    return Identity(token)  # look it up in your sessions


def has_role(socket: WebSocket[str], _: Handler) -> None:
    """The path names the role, the guard checks it: no handler runs for anybody else."""
    if socket.path_params["role"] not in ROLES.get(socket.user, ()):
        raise PermissionDeniedException("you do not have this role")


def is_member(socket: WebSocket[str], _: Handler) -> None:
    if socket.user not in MEMBERS.get(socket.path_params["room"], ()):
        raise PermissionDeniedException("this room is not yours")


role = channel_listener("/roles/{role:str}", channel="role:{role}", guards=[has_role])
room = channel_listener("/rooms/{room:str}", channel="room:{room}", guards=[is_member], publish=str)

channels = Channels(os.environ.get("CHANNELS_URL", "memory://"), arbitrary_channels_allowed=True)
app = Telex([role, room], plugins=[channels], authenticate=Authenticate(who, cookie="user"))


async def tell_admins(text: str) -> None:
    """Everyone with the role, on every node: they follow the channel of the role."""
    await channels.publish("role:admin", {"type": "alert", "text": text})


async def take_role(name: str, lost: str) -> None:
    """Take a role away; 1012 lets the user's clients come back, and the guards decide again."""
    ROLES[name].discard(lost)
    await app.users.close(name, 1012, "your roles have changed")
