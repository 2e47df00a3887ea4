"""Who may connect to NATS, and whom the client believes: users, tokens and ``tls://``."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from telex.channels import Channels, ChannelsBackend, Keep, publisher
from telex.channels.backends.nats import NatsBackend
from telex.exceptions import BackendUnavailable, ImproperlyConfiguredException
from tests.channels.brokers import Nats
from tests.channels.conftest import take_data, until, within
from tests.channels.tls import Certificate, make_certificate
from tests.support.ports import free_port

pytestmark = pytest.mark.broker


class GuardedNats(Nats):
    """With more options; ``url`` and ``url_for`` do not tell who connects."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self._options = options

    def command(self) -> list[str]:
        return [*super().command(), *self._options]

    def url_for(self, login: str, *, scheme: str = "nats", host: str = "localhost") -> str:
        return f"{scheme}://{login}{host}:{self.port}"


def running(*options: str) -> Iterator[GuardedNats]:
    server = GuardedNats(*options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def with_password() -> Iterator[GuardedNats]:
    yield from running("--user", "ann@shop", "--pass", "p@ss:w/rd,?")


@pytest.fixture(scope="module")
def with_token() -> Iterator[GuardedNats]:
    yield from running("--auth", "to/ken")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def with_tls(certificate: Certificate) -> Iterator[GuardedNats]:
    options = "--tls", "--tlscert", str(certificate.path), "--tlskey", str(certificate.key)
    yield from running(*options, "--user", "ann", "--pass", "secret")


async def works(backend: str | ChannelsBackend, name: str) -> None:
    """Events and history go over it."""
    async with Channels(backend, arbitrary_channels_allowed=True, history=Keep(10)) as hub:
        async with hub.subscribe(name) as events:
            await hub.publish(name, "x" * 100_000)
            assert await take_data(events, 1) == ["x" * 100_000]
        async with hub.subscribe(name, history=-1) as past:
            assert await take_data(past, 1) == ["x" * 100_000]


async def refused(backend: str | ChannelsBackend, reason: str) -> None:
    with pytest.raises(BackendUnavailable, match=reason):
        await within(Channels(backend, channels=["a"]).__aenter__())


# -- users and tokens


async def test_the_url_tells_user_and_password(with_password: GuardedNats, name: str) -> None:
    url = with_password.url_for("ann%40shop:p%40ss%3Aw%2Frd%2C%3F@")
    await works(url, name)
    async with publisher(url) as other:
        await other.publish(name, "x")
    unheard = f"127.0.0.1:{free_port()}"
    await works(f"{url},nats://{unheard}", name)
    await works(f"nats://{unheard},{url}", name)


@pytest.mark.parametrize("login", ["", "ann%40shop:wrong@", "ann%40shop@"], ids=["nobody", "wrong", "token"])
async def test_who_has_no_password_is_refused(with_password: GuardedNats, login: str) -> None:
    await refused(with_password.url_for(login), "Authorization Violation")


async def test_the_url_tells_a_token(with_token: GuardedNats, name: str) -> None:
    await works(with_token.url_for("to%2Fken@"), name)
    await refused(with_token.url_for("other@"), "Authorization Violation")


def test_servers_with_different_users_are_not_one_nats() -> None:
    with pytest.raises(ImproperlyConfiguredException, match="write one user and password"):
        NatsBackend("nats://a:1@one,nats://b:2@two")


# -- TLS


@pytest.fixture
def trusting(certificate: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate.path)


async def test_events_and_history_go_over_tls(with_tls: GuardedNats, trusting: ssl.SSLContext, name: str) -> None:
    await works(NatsBackend(with_tls.url_for("ann:secret@", scheme="tls"), tls=trusting), name)


async def test_the_url_alone_believes_whom_the_system_believes(
    with_tls: GuardedNats, certificate: Certificate, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.path))
    await works(with_tls.url_for("ann:secret@", scheme="tls"), name)


async def test_a_certificate_that_nobody_trusted_signed_is_refused(with_tls: GuardedNats, tmp_path: Path) -> None:
    url = with_tls.url_for("ann:secret@", scheme="tls")
    await refused(url, "CERTIFICATE_VERIFY_FAILED")
    another = make_certificate(tmp_path, "localhost")
    await refused(NatsBackend(url, tls=ssl.create_default_context(cafile=another.path)), "CERTIFICATE_VERIFY_FAILED")


async def test_a_certificate_of_another_host_is_refused(with_tls: GuardedNats, trusting: ssl.SSLContext) -> None:
    url = with_tls.url_for("ann:secret@", scheme="tls", host="127.0.0.1")
    await refused(NatsBackend(url, tls=trusting), r"not valid for '127\.0\.0\.1'")


@pytest.mark.parametrize("by", ["scheme", "context"])
async def test_no_password_is_sent_in_the_clear_where_tls_was_asked_for(by: str) -> None:
    """Somebody between us and the server says that it has no TLS."""
    heard = bytearray()
    has_ended = asyncio.Event()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}\r\n')
        heard.extend(await reader.read())
        writer.close()
        has_ended.set()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tls = ssl.create_default_context() if by == "context" else None
        scheme = "tls" if by == "scheme" else "nats"
        await refused(NatsBackend(f"{scheme}://ann:secret@localhost:{port}", tls=tls), "TLS was requested")
        await within(has_ended.wait())
    assert b"secret" not in heard


async def test_a_server_that_comes_back_is_met_over_tls_again(
    certificate: Certificate, trusting: ssl.SSLContext, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")
    server = GuardedNats("--tls", "--tlscert", str(certificate.path), "--tlskey", str(certificate.key))
    try:
        server.start()
        backend = NatsBackend(server.url_for("", scheme="tls"), tls=trusting)
        async with (
            Channels(backend, arbitrary_channels_allowed=True, history=Keep(10)) as hub,
            hub.subscribe(name) as events,
        ):
            server.kill()
            await until(lambda: not hub.is_ready)
            await server.restart()
            await until(lambda: hub.is_ready)
            await hub.publish(name, "after")
            assert await take_data(events, 1) == ["after"]
    finally:
        server.remove()
