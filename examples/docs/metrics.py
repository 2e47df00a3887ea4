from telex import Telex, websocket_listener
from telex.health import Health
from telex.telemetry.prometheus import Prometheus


@websocket_listener("/rooms/{room:str}")
def say(data: str, room: str) -> str:
    return f"{room}: {data}"


app = Telex([say], plugins=[Health(), Prometheus()])
