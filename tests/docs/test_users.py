"""The examples of users, roles and rooms."""

from __future__ import annotations

import pytest

from examples.docs import revoke, roles
from telex.exceptions import WebSocketDisconnect
from telex.testing import AsyncTestClient, WebSocketDenied


@pytest.mark.long
async def test_a_user_is_told_counted_and_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoke, "SESSIONS", dict(revoke.SESSIONS))
    async with AsyncTestClient(revoke.app) as client:
        phone = client.websocket_connect("/echo", cookies={"session": "phone-secret"})
        laptop = client.websocket_connect("/echo", cookies={"session": "laptop-secret"}, subprotocols=["telex.v1"])
        bo = client.websocket_connect("/echo", cookies={"session": "bo-secret"})
        async with phone, laptop, bo:
            response = await client.post("/users/ada/tell", content=b"lunch")
            assert response.json() == {"pages": 2}
            notice = {"type": "notice", "text": "lunch"}
            await phone.expect(notice)
            await laptop.expect({"type": "notify", "data": notice})
            await client.post("/users/ada/revoke")
            for session in (phone, laptop):
                with pytest.raises(WebSocketDisconnect) as closed:
                    await session.receive()
                assert (closed.value.code, closed.value.reason) == (4403, "revoked")
            await bo.send_text("still here")
            await bo.expect("still here")
        with pytest.raises(WebSocketDenied) as denied:
            async with client.websocket_connect("/echo", cookies={"session": "phone-secret"}):
                pass
        assert denied.value.status_code == 401


async def test_guards_decide_who_follows_a_role_or_a_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "ROLES", {name: set(each) for name, each in roles.ROLES.items()})
    async with AsyncTestClient(roles.app) as client:
        for name, path in (("bo", "/roles/admin"), ("bo", "/rooms/plans"), ("eve", "/roles/staff")):
            with pytest.raises(WebSocketDenied) as denied:
                async with client.websocket_connect(path, cookies={"user": name}):
                    pass
            assert denied.value.status_code == 403
        ada = client.websocket_connect("/roles/admin", cookies={"user": "ada"})
        async with ada, client.websocket_connect("/rooms/lobby", cookies={"user": "bo"}) as bo:
            await roles.tell_admins("the disk is full")
            await ada.expect({"type": "alert", "text": "the disk is full"})
            await bo.send_text("hello")
            await bo.expect("hello")
            await roles.take_role("ada", "admin")
            with pytest.raises(WebSocketDisconnect) as closed:
                await ada.receive()
            assert closed.value.code == 1012
        with pytest.raises(WebSocketDenied):
            async with client.websocket_connect("/roles/admin", cookies={"user": "ada"}):
                pass
