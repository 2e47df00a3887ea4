import pytest

from examples.docs.hello import Greeting, hello
from examples.docs.revoke import app as accounts
from telex import WebSocketDisconnect, websocket_listener
from telex.exceptions import WebSocketException
from telex.testing import AsyncTestClient, WebSocketDenied, create_test_client


def test_a_handler_without_an_app() -> None:
    with create_test_client(hello) as client, client.websocket_connect("/hello") as session:
        session.send_json(Greeting("Ada"))
        assert session.receive_text() == "Hello, Ada!"


async def test_on_the_event_loop() -> None:
    client = AsyncTestClient(accounts, timeout=2, cookies={"session": "bo-secret"})
    async with client, client.websocket_connect("/echo") as session:
        await session.send_text("hi")
        await session.expect("hi")
        await session.refute()  # nothing more comes


async def test_a_denial() -> None:
    async with AsyncTestClient(accounts, cookies={"session": "forged"}) as client:
        with pytest.raises(WebSocketDenied) as denied:
            await client.websocket_connect("/echo")
    assert denied.value.status_code == 401
    assert denied.value.json() == {"status_code": 401, "detail": "log in first"}


def test_a_close() -> None:
    @websocket_listener("/")
    def give_up(data: str) -> None:
        raise WebSocketException(4000, "enough")

    with create_test_client(give_up) as client, client.websocket_connect("/") as session:
        session.send_text("hi")
        closed = session.expect(WebSocketDisconnect)
    assert (closed.code, closed.reason) == (4000, "enough")


def test_an_error_of_the_app() -> None:
    @websocket_listener("/")
    def divide(data: float) -> float:
        return 1 / data

    with create_test_client(divide) as client, client.websocket_connect("/") as session:
        session.send_json(0.0)
        with pytest.raises(ZeroDivisionError):
            session.receive_json()
