"""Who a limit counts: the address of a client, or its user."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final

from telex.connection import Socket
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("client_ip", "is_global", "is_named_by_proxy", "user", "user_key")

_NAMING: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"cf-connecting-ip", b"true-client-ip"})
"""Headers in which proxies name their clients."""
_CACHED: Final = 4096


def client_ip(socket: Socket) -> str | None:
    """The address of the client; of IPv6 the network of 64 bits, because one client has all of its addresses.

    It is the address that the server gives: that of the peer, or what a proxy says which the server is configured to
    trust (``forwarded_allow_ips``). ``None`` on a Unix socket without such a proxy: nobody is counted.
    """
    client = socket.scope.get("client")
    if not client:
        return None
    host: str = client[0]
    return _network(host) if ":" in host else host if host[:1].isdigit() else None


def user(socket: Socket) -> object:
    """The user of ``socket.user``, as :func:`user_key` names it.

    :raises ImproperlyConfiguredException: no authentication middleware has set a user, or it has no name.
    """
    return user_key(socket.user)


def user_key(user: object) -> object:
    """What names a user: the first of its ``id``, ``identity``, ``username`` and ``email``, or itself.

    ``None`` for a user that is not authenticated: nobody is counted.

    :raises ImproperlyConfiguredException: it has none of these.
    """
    if user is None or getattr(user, "is_authenticated", True) is False:
        return None
    if isinstance(user, (str, int)):
        return user
    for name in ("id", "identity", "username", "email"):
        try:
            value = getattr(user, name, None)
        except NotImplementedError:  # starlette's users need not have an identity
            continue
        if value is not None:
            return str(value)
    raise ImproperlyConfiguredException(
        f"key=user cannot tell one {type(user).__name__} from another: write key=lambda socket: socket.user.…"
    )


def is_named_by_proxy(socket: Socket) -> bool:
    """Whether a proxy names its client in a header that the server does not believe: many clients have one address."""
    client = socket.scope.get("client")
    host = client[0].encode() if client else b""
    named = [value for name, value in socket.scope["headers"] if name in _NAMING]
    return bool(named) and not any(host in value for value in named)


@lru_cache(_CACHED)
def _network(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


@lru_cache(_CACHED)
def is_global(address: str) -> bool:
    """Whether an address is one of the internet, and not of this host or its network, as a proxy's is."""
    try:
        return ipaddress.ip_address(address.partition("/")[0]).is_global
    except ValueError:
        return False
