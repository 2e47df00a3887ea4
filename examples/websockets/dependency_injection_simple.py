"""A parameter gets the dependency of its name, which is made once a connection."""

from telex import Provide, Telex, websocket_listener


def provide_greeting() -> str:
    return "Welcome"


@websocket_listener("/", dependencies={"greeting": Provide(provide_greeting)})
def handler(data: str, greeting: str) -> str:
    return f"{greeting}, {data}!"


app = Telex([handler])
