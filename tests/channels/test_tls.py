"""``rediss://``: channels over real TLS, and who is believed."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from telex.channels import Channels, Gap, Keep, publisher
from telex.exceptions import BackendUnavailable
from tests.channels.brokers import Broker
from tests.channels.conftest import take, take_data, until, within
from tests.channels.tls import Certificate, TlsRelay, make_certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def context(certificate: Certificate) -> ssl.SSLContext:
    """The server's side."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate.path, certificate.key)
    return made


@pytest.fixture
async def relay(running_broker: Callable[[str], Broker], context: ssl.SSLContext) -> AsyncIterator[TlsRelay]:
    async with TlsRelay(running_broker("valkey").port).running(context) as relay:
        yield relay


@asynccontextmanager
async def hub_at(url: str) -> AsyncIterator[Channels]:
    async with Channels(url, arbitrary_channels_allowed=True, history={"kept:*": Keep(10)}) as hub:
        yield hub


async def test_events_and_history_go_over_tls(relay: TlsRelay, certificate: Certificate, name: str) -> None:
    url = f"rediss://localhost:{relay.port}/0?ssl_ca_certs={certificate.path}"
    async with hub_at(url) as hub, hub.subscribe([name, f"kept:{name}"]) as events:
        await hub.publish([name, f"kept:{name}"], "x" * 100_000)
        async with publisher(url) as other:
            await other.publish(name, "from elsewhere")
        assert await take_data(events, 3) == ["x" * 100_000, "x" * 100_000, "from elsewhere"]
        async with hub.subscribe(f"kept:{name}", history=-1) as past:
            assert await take_data(past, 1) == ["x" * 100_000]
    # One connection publishes, one reads the past, one hears, one is the publisher's: none went past the relay.
    assert relay.accepted == 4


async def test_a_broken_connection_is_healed_over_tls(
    relay: TlsRelay, certificate: Certificate, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")
    url = f"rediss://localhost:{relay.port}/0?ssl_ca_certs={certificate.path}"
    async with hub_at(url) as hub, hub.subscribe(name) as events:
        await relay.cut()
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish(name, "after")
        gap = (await take(events, 1))[0]
        assert isinstance(gap, Gap)
        assert await take_data(events, 1) == ["after"]


async def test_a_certificate_that_nobody_trusted_signed_is_refused(relay: TlsRelay) -> None:
    with pytest.raises(BackendUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await within(Channels(f"rediss://localhost:{relay.port}", channels=["a"]).__aenter__())


async def test_a_certificate_of_another_host_is_refused(relay: TlsRelay, certificate: Certificate) -> None:
    url = f"rediss://127.0.0.1:{relay.port}?ssl_ca_certs={certificate.path}"
    with pytest.raises(BackendUnavailable, match=r"not valid for '127\.0\.0\.1'"):
        await within(Channels(url, channels=["a"]).__aenter__())
    async with hub_at(f"{url}&ssl_check_hostname=false") as hub:
        assert hub.is_ready


async def test_a_server_may_ask_who_connects(
    running_broker: Callable[[str], Broker],
    context: ssl.SSLContext,
    certificate: Certificate,
    tmp_path: Path,
    name: str,
) -> None:
    own = make_certificate(tmp_path, "client")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(own.path)
    async with TlsRelay(running_broker("valkey").port).running(context) as relay:
        url = f"rediss://localhost:{relay.port}?ssl_ca_certs={certificate.path}"
        with pytest.raises(BackendUnavailable):
            await within(Channels(url, channels=["a"]).__aenter__())
        async with hub_at(f"{url}&ssl_certfile={own.path}&ssl_keyfile={own.key}") as hub, hub.subscribe(name) as events:
            await hub.publish(name, "it is me")
            assert await take_data(events, 1) == ["it is me"]
