"""``rediss+cluster://``: every node of a cluster over real TLS, and each must be the one that it says it is."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from telex.channels import Channels, Gap, Keep, publisher
from telex.exceptions import BackendUnavailable
from tests.channels.cluster import Cluster, Node, poll
from tests.channels.cluster_load import channel_on
from tests.channels.conftest import take, take_data, until, within
from tests.channels.tls import Certificate, TlsRelay, make_certificate

# The relays live as long as the module, and so must their event loop: the cluster takes a while to hear of them.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.broker]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cluster-tls")


@pytest.fixture(scope="module")
def certificate(folder: Path) -> Certificate:
    return make_certificate(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relays(running_cluster: Cluster, certificate: Certificate) -> AsyncIterator[list[TlsRelay]]:
    """One before each node."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.path, certificate.key)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(TlsRelay(node.port).running(context)) for node in running_cluster.nodes]


@pytest.fixture(scope="module")
def announced(running_cluster: Cluster, relays: list[TlsRelay]) -> Iterator[Cluster]:
    """The cluster tells its clients to go to the relays, by the name that the certificate has."""
    nodes = running_cluster.nodes
    with announcing(nodes, "localhost", [relay.port for relay in relays]):
        yield running_cluster


@contextmanager
def announcing(nodes: Sequence[Node], host: str, ports: Sequence[int]) -> Iterator[None]:
    """Let ``nodes`` be found at ``host`` and ``ports``."""
    try:
        for node, port in zip(nodes, ports, strict=True):
            announce(node, "hostname", host, port)
        poll(lambda: all(endpoints(node) == {(host, port) for port in ports} for node in nodes))
        yield
    finally:
        for node in nodes:
            announce(node, "ip", "", 0)
        own = {("127.0.0.1", node.port) for node in nodes}
        poll(lambda: all(endpoints(node) == own for node in nodes))


def announce(node: Node, kind: str, host: str, port: int) -> None:
    node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", kind)
    node.ask("CONFIG", "SET", "cluster-announce-hostname", host, "cluster-announce-port", port)


def endpoints(node: Node) -> set[tuple[str, int]]:
    """Where ``node`` says that the primaries are."""
    return {(primary[0], primary[1]) for _, _, primary, *_ in node.ask("CLUSTER", "SLOTS")}


@pytest.fixture
def address(relays: list[TlsRelay]) -> str:
    """The URL without saying who is believed."""
    return "rediss+cluster://" + ",".join(f"localhost:{relay.port}" for relay in relays)


@pytest.fixture
def url(address: str, certificate: Certificate) -> str:
    return f"{address}?ssl_ca_certs={certificate.path}"


@asynccontextmanager
async def hub_at(url: str) -> AsyncIterator[Channels]:
    async with Channels(url, arbitrary_channels_allowed=True, history={"kept:*": Keep(10)}) as hub:
        yield hub


async def test_events_and_history_of_every_node_go_over_tls(
    announced: Cluster, relays: list[TlsRelay], url: str, name: str
) -> None:
    channels = [channel_on(announced, node, kind) for node in announced.nodes for kind in (name, f"kept:{name}")]
    kept = [channel for channel in channels if channel.startswith("kept:")]
    before = [relay.accepted for relay in relays]
    async with hub_at(url) as hub, hub.subscribe(channels) as events:
        await hub.publish(channels, "x" * 100_000)
        assert {item.channel for item in await take(events, 6)} == set(channels)
        async with publisher(url) as other:
            await other.publish(channels, "from elsewhere")
        assert await take_data(events, 6) == ["from elsewhere"] * 6
        async with hub.subscribe(kept, history=-1) as past:
            assert await take_data(past, 3) == ["x" * 100_000] * 3
    # One connection publishes, one hears, one is the publisher's: none went past a relay.
    assert [relay.accepted - count for relay, count in zip(relays, before, strict=True)] == [3, 3, 3]


async def test_a_broken_connection_is_healed_over_tls(
    announced: Cluster, relays: list[TlsRelay], url: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "telex.channels")
    node, relay = announced.nodes[1], relays[1]
    live, kept = channel_on(announced, node, name), channel_on(announced, node, f"kept:{name}")
    async with hub_at(url) as hub, hub.subscribe(live) as events, hub.subscribe(kept) as whole:
        await hub.publish(kept, "before")
        await relay.cut()
        await until(lambda: hub.statistics().reconnects == 1)
        await hub.publish([live, kept], "after")
        assert isinstance((await take(events, 1))[0], Gap)
        assert await take_data(events, 1) == ["after"]
        assert await take_data(whole, 2) == ["before", "after"]


async def test_a_slot_that_moves_is_followed_over_tls(announced: Cluster, url: str, name: str) -> None:
    source, target, _ = announced.nodes
    channel = channel_on(announced, source, name)
    async with hub_at(url) as hub, publisher(url) as other, hub.subscribe(channel) as events:
        await other.publish(channel, "there")
        announced.move(channel, target)
        await until(lambda: hub.statistics().reconnects == 1)
        await other.publish(channel, "here")
        assert await take_data(events, 1) == ["there"]
        assert isinstance((await take(events, 1))[0], Gap)
        assert await take_data(events, 1) == ["here"]


async def test_a_certificate_that_nobody_trusted_signed_is_refused(
    announced: Cluster, address: str, folder: Path
) -> None:
    other = make_certificate(folder, "elsewhere")
    for trusted in ("", f"?ssl_ca_certs={other.path}"):
        with pytest.raises(BackendUnavailable, match=r"no node of the cluster answers.*CERTIFICATE_VERIFY_FAILED"):
            await within(Channels(address + trusted, channels=["a"]).__aenter__())


async def test_each_node_must_have_a_certificate_for_the_name_that_the_cluster_has_for_it(
    announced: Cluster, url: str, name: str
) -> None:
    """What the URL names is only where to ask for the nodes."""
    for node in announced.nodes:
        node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "ip")
    try:
        with pytest.raises(BackendUnavailable, match=r"cluster says that it is.*not valid for '127\.0\.0\.1'"):
            await within(Channels(url, channels=["a"]).__aenter__())
        async with hub_at(f"{url}&ssl_check_hostname=false") as hub, hub.subscribe(name) as events:
            await hub.publish(name, "whoever you are")
            assert await take_data(events, 1) == ["whoever you are"]
    finally:
        for node in announced.nodes:
            node.ask("CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname")
