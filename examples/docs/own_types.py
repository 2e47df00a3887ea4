import ipaddress
from ipaddress import IPv4Address

from telex import Telex, websocket_listener


def is_address(wanted: type) -> bool:
    return wanted is IPv4Address


def read_address(wanted: type, value: object) -> IPv4Address:
    return ipaddress.IPv4Address(str(value))


@websocket_listener("/next")
async def next_address(data: IPv4Address) -> IPv4Address:
    return data + 1


app = Telex(
    [next_address],
    type_decoders=[(is_address, read_address)],
    type_encoders={IPv4Address: str},
)
