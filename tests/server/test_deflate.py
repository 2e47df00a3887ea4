"""permessage-deflate (RFC 7692): what is negotiated, and that both ends keep to it."""

from __future__ import annotations

import zlib

import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from telex.server import Limits
from telex.server.deflate import Agreement, Deflater, Inflater, negotiate
from telex.server.frames import ProtocolViolation
from telex.server.settings import App
from tests.server.apps import echo
from tests.server.conftest import connected, running
from tests.support.raw import BINARY, CONTINUATION, PING, TEXT, RawClient, frame

LIMITS = Limits()
TAIL = b"\x00\x00\xff\xff"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        ("PERMESSAGE-DEFLATE", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            'permessage-deflate; client_max_window_bits="10"; server_max_window_bits=9',
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
        ),
        ("x-webkit-deflate-frame, permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            "permessage-deflate; server_max_window_bits=12",
        ),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=010", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; unknown", None),
        ("permessage-bzip2", None),
        ("", None),
    ],
)
def test_negotiation(offer: str, answer: str | None) -> None:
    agreement = negotiate([offer.encode()], LIMITS)
    assert (agreement.header.decode() if agreement else None) == answer


def test_settings_shape_the_agreement() -> None:
    offer = [b"permessage-deflate; client_max_window_bits"]
    assert negotiate(offer, Limits(deflate=False)) is None
    agreement = negotiate(offer, Limits(deflate_window_bits=15, deflate_context_takeover=False))
    assert agreement is not None
    assert agreement.header == b"permessage-deflate; server_no_context_takeover; client_max_window_bits=15"


@pytest.mark.parametrize("server_bits", [9, 12, 15])
@pytest.mark.parametrize("takeover", [True, False])
def test_what_is_deflated_inflates(server_bits: int, takeover: bool) -> None:
    agreement = Agreement(not takeover, not takeover, server_bits, server_bits)
    deflater, inflater = Deflater(agreement), Inflater(agreement)
    sizes = []
    for message in (b"", b"a", b"hello hello hello " * 400, b"hello hello hello " * 400):
        packed = deflater.deflate(message)
        sizes.append(len(packed))
        assert inflater.inflate(packed, len(message), last=True) == message
    assert (sizes[3] < sizes[2]) is takeover


def test_a_final_block_ends_the_stream_but_not_the_connection() -> None:
    inflater = Inflater(Agreement(False, False, 15, None))
    for _ in range(2):
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(b"final") + packer.flush(zlib.Z_FINISH)
        assert inflater.inflate(packed, 100, last=False) + inflater.inflate(b"\x00", 100, last=True) == b"final"


def test_garbage_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        Inflater(Agreement(False, False, 15, None)).inflate(b"\xff" * 20, 100, last=True)
    assert caught.value.code == 1007


@pytest.mark.parametrize("takeover", [True, False])
async def test_a_foreign_client_understands(echo_app: App, takeover: bool) -> None:
    offer = ClientPerMessageDeflateFactory(
        server_no_context_takeover=not takeover, client_no_context_takeover=not takeover, client_max_window_bits=True
    )
    async with (
        running(echo_app, deflate_min_size=10) as server,
        websockets.connect(f"ws://127.0.0.1:{server.port}/", extensions=[offer], max_size=None) as client,
    ):
        for message in ("tiny", "a longer text " * 20, "grüße €" * 9000, b"\x00" * 700_000, "a longer text " * 20, ""):
            await client.send(message)
            assert await client.recv() == message
        await client.send(["many " * 50, "compressed " * 50, "fragments " * 50])
        assert await client.recv() == "many " * 50 + "compressed " * 50 + "fragments " * 50


async def test_only_messages_of_the_minimum_size_are_compressed() -> None:
    async with running(echo, deflate_min_size=100) as server, await RawClient.open(server.port) as client:
        response = await client.handshake("/", [("Sec-WebSocket-Extensions", "permessage-deflate")])
        assert response.header("sec-websocket-extensions") == "permessage-deflate; server_max_window_bits=12"
        for size, rsv in ((99, 0), (100, 4), (3000, 4)):
            await client.send(frame(TEXT, b"x" * size))
            assert (await client.read_frame()).rsv == rsv


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", rsv=4),
        frame(PING, b"", rsv=4),
        frame(BINARY, b"x", rsv=2),
    ],
)
async def test_the_compression_bit_where_it_must_not_be(sent: bytes) -> None:
    async with running(echo) as server, await RawClient.open(server.port) as client:
        await client.handshake("/", [("Sec-WebSocket-Extensions", "permessage-deflate")])
        await client.send(sent)
        assert (await client.read_close()).code == 1002


async def test_bad_text_shows_in_compressed_fragments_too() -> None:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    first = packer.compress(b"good \xff bad") + packer.flush(zlib.Z_SYNC_FLUSH)
    async with running(echo) as server, await RawClient.open(server.port) as client:
        await client.handshake("/", [("Sec-WebSocket-Extensions", "permessage-deflate")])
        await client.send(frame(TEXT, first, rsv=4, fin=False))
        assert (await client.read_close()).code == 1007


async def test_compression_is_not_used_unasked() -> None:
    async with running(echo) as server, connected(server.port) as client:
        await client.send(frame(TEXT, b"x" * 5000))
        assert (await client.read_frame()).rsv == 0
        await client.send(frame(TEXT, b"x", rsv=4))
        assert (await client.read_close()).code == 1002
