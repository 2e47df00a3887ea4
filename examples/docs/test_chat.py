import pytest

from examples.docs.chat.app import app
from examples.docs.chat.messages import Joined, Left, Present, Said, Say, Statistics, Who
from telex.testing import AsyncTestClient, WebSocketDenied


async def test_two_people_talk() -> None:
    async with AsyncTestClient(app) as client, client.websocket_connect("/rooms/tea?name=Ada") as ada:
        assert await ada.expect(Joined) == Joined("Ada")

        async with client.websocket_connect("/rooms/tea?name=Bob") as bob:
            assert await ada.expect(Joined) == Joined("Bob")
            assert await bob.expect(Joined) == Joined("Bob")

            await bob.send_json(Say("Good morning"))
            assert await ada.expect(Said) == Said("Bob", "Good morning")
            assert await bob.expect(Said) == Said("Bob", "Good morning")

            await bob.send_json(Who())
            assert await bob.expect(Present) == Present(["Ada", "Bob"])

            async with client.websocket_connect("/rooms/tea/statistics") as statistics:
                assert await statistics.expect(Statistics) == Statistics(members=2, lines=1)

        assert await ada.expect(Left) == Left("Bob")


async def test_a_name_is_taken_once() -> None:
    async with AsyncTestClient(app) as client, client.websocket_connect("/rooms/tea?name=Ada"):
        with pytest.raises(WebSocketDenied) as refused:
            await client.websocket_connect("/rooms/tea?name=Ada")
        assert refused.value.status_code == 409


async def test_a_line_is_not_endless() -> None:
    async with AsyncTestClient(app) as client, client.websocket_connect("/rooms/tea?name=Ada") as ada:
        await ada.expect(Joined)
        await ada.send_json(Say("o" * 501))
        await ada.expect(lambda answer: "$.text" in str(answer))
        await ada.send_json(Say("short"))
        assert await ada.expect(Said) == Said("Ada", "short")
