"""A listener as a class. One instance serves all connections: here its attributes count them."""

from telex import Telex, WebsocketListener


class Counter(WebsocketListener):
    path = "/"

    def __init__(self) -> None:
        self.connections = 0

    def on_accept(self) -> None:
        self.connections += 1

    def on_disconnect(self) -> None:
        self.connections -= 1

    def on_receive(self, data: str) -> str:
        return f"{data}, one of {self.connections}"


app = Telex([Counter])
