from typing import ClassVar

from telex import Controller, Provide, Router, Telex, websocket_listener


def app_name() -> str:
    return "app"


def router_name() -> str:
    return "router"


class Words(Controller):
    path = "/words"
    opt: ClassVar = {"shout": False}

    @websocket_listener("/say", opt={"shout": True}, name="say")
    async def say(self, data: str, name: str, place: str) -> str:
        return f"{name} at {place}: {data}"


app = Telex(
    [Router("/v1", route_handlers=[Words], dependencies={"name": Provide(router_name)})],
    dependencies={"name": Provide(app_name), "place": Provide(lambda: "home")},
)
