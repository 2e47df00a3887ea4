"""Close codes of RFC 6455 section 7.4 and of the IANA registry, and the HTTP status codes of denials."""

from __future__ import annotations

from typing import Final

HTTP_400_BAD_REQUEST: Final = 400
HTTP_401_UNAUTHORIZED: Final = 401
HTTP_403_FORBIDDEN: Final = 403
HTTP_404_NOT_FOUND: Final = 404
HTTP_405_METHOD_NOT_ALLOWED: Final = 405
HTTP_426_UPGRADE_REQUIRED: Final = 426
HTTP_429_TOO_MANY_REQUESTS: Final = 429
HTTP_500_INTERNAL_SERVER_ERROR: Final = 500
HTTP_503_SERVICE_UNAVAILABLE: Final = 503

WS_1000_NORMAL_CLOSURE: Final = 1000
WS_1001_GOING_AWAY: Final = 1001
WS_1002_PROTOCOL_ERROR: Final = 1002
WS_1003_UNSUPPORTED_DATA: Final = 1003
WS_1005_NO_STATUS_RECEIVED: Final = 1005
WS_1006_ABNORMAL_CLOSURE: Final = 1006
WS_1007_INVALID_FRAME_PAYLOAD_DATA: Final = 1007
WS_1008_POLICY_VIOLATION: Final = 1008
WS_1009_MESSAGE_TOO_BIG: Final = 1009
WS_1010_MANDATORY_EXT: Final = 1010
WS_1011_UNEXPECTED_ERROR: Final = 1011
WS_1012_SERVICE_RESTART: Final = 1012
WS_1013_TRY_AGAIN_LATER: Final = 1013
WS_1014_BAD_GATEWAY: Final = 1014
WS_1015_TLS_HANDSHAKE: Final = 1015

MAX_CLOSE_REASON_BYTES: Final = 123
"""A control frame has at most 125 bytes, of which the code takes two (RFC 6455 section 5.5)."""


SENDABLE_CLOSE_CODES: Final = "1000 to 1003, 1007 to 1014, or 3000 to 4999"
"""The codes that :func:`is_sendable_close_code` allows, for error texts."""

CLOSE_CODE_OF_STATUS: Final = 4000
"""The close code of an HTTP status is this number plus the status: 4403 for 403."""


def is_sendable_close_code(code: int) -> bool:
    """Whether RFC 6455 section 7.4 allows an endpoint to send ``code``."""
    return code in _SENDABLE or 3000 <= code <= 4999


_SENDABLE: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


_CONTROLS: Final = dict.fromkeys([*range(0x20), 0x7F], " ")


def cut_close_reason(reason: str) -> str:
    """``reason`` without control characters, cut at a character boundary to the 123 bytes of a close frame."""
    raw = reason.translate(_CONTROLS).encode("utf-8", "replace")
    if len(raw) <= MAX_CLOSE_REASON_BYTES:
        return raw.decode()
    return raw[:MAX_CLOSE_REASON_BYTES].decode("utf-8", "ignore")
