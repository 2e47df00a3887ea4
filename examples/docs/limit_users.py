import os

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from telex import DefineMiddleware, Telex, websocket_listener
from telex.limits import Limit, client_ip, user


class ByCookie(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.cookies.get("session")  # look it up in your sessions
        return None if name is None else (AuthCredentials(), SimpleUser(name))


per_user = Limit(
    5,
    per=60,
    key=user,
    store=os.environ.get("REDIS_URL", "redis://localhost"),
    on_store_failure="open",
)


@websocket_listener("/chat", connect_limit=[per_user])
async def chat(data: str) -> str:
    return data


app = Telex(
    [chat],
    middleware=[DefineMiddleware(AuthenticationMiddleware, backend=ByCookie())],
    connect_limit=[Limit(20, per=60, key=client_ip)],
)
