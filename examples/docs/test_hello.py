from examples.docs.hello import app
from telex.testing import TestClient


def test_hello() -> None:
    with TestClient(app) as client, client.websocket_connect("/hello") as session:
        session.send_json({"name": "Ada"})
        session.expect("Hello, Ada!")
