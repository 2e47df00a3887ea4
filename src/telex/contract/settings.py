"""What a document says of a route's close codes, denials and limits."""

from __future__ import annotations

from typing import Any, Final

from telex.contract.schemas import Schema
from telex.datastructures import EmptyType
from telex.defaults import MAX_CALLS, MAX_MESSAGE_SIZE, MAX_STREAMS
from telex.layers import Layer, nearest
from telex.limits.rates import Limit
from telex.plans import HandlerPlan
from telex.protocol.close_codes import CLOSE_CODES
from telex.status_codes import CLOSE_CODE_OF_STATUS

__all__ = ("close_code", "close_codes_of", "denials_of", "limits_of")

_ALWAYS: Final = (1000, 1001, 1006, 1009, 1011, 1012)


def close_codes_of(plan: HandlerPlan) -> Schema:
    """The close codes of Telex that a client of this route may see; those of the app's own exceptions are others."""
    codes = {*_ALWAYS}
    if plan.operations:
        codes.add(1007)
    if plan.kind == "stream":
        codes |= {1000, 1003}
    if plan.speaks_frames:
        codes.add(1008)
    if plan.channel is not None:
        codes.add(1013)
    if _may_refuse(plan):
        codes |= {CLOSE_CODE_OF_STATUS + 401, CLOSE_CODE_OF_STATUS + 403}
    limits = (nearest(plan.layer.message_limit, None), nearest(plan.layer.byte_limit, None))
    if any(limit is not None and limit.on_exceed == "close" for limit in limits):
        codes.add(CLOSE_CODE_OF_STATUS + 429)
    return {str(code): close_code(code) for code in sorted(codes)}


def _may_refuse(plan: HandlerPlan) -> bool:
    return bool(plan.layer.guards) or nearest(plan.layer.authenticate, None) is not None


def close_code(code: int) -> Schema:
    """One row of the table of close codes."""
    row = CLOSE_CODES[code]
    return {"description": row.meaning, "after": row.after}


def denials_of(plan: HandlerPlan, *, checks_values: bool) -> Schema:
    """How the route refuses handshakes, and with which statuses of Telex; those of the app's own code are others."""
    statuses = {403, 503}
    if checks_values:
        statuses.add(400)
    if _may_refuse(plan):
        statuses.add(401)
    if plan.channel is not None:
        statuses |= {404, 410}
    if plan.kind == "multiplex":
        statuses.add(400)
    if plan.layer.connect_limit != (None,):
        statuses.add(429)
    return {"mode": nearest(plan.layer.denials, "auto"), "statuses": sorted(statuses)}


def limits_of(plan: HandlerPlan) -> Schema:
    """The limits that a client keeps to."""
    layer = plan.layer
    found: dict[str, Any] = {"maxMessageSize": nearest(layer.max_message_size, MAX_MESSAGE_SIZE)}
    if plan.speaks_frames:
        found |= {
            "maxCalls": nearest(layer.max_calls, MAX_CALLS),
            "maxStreams": nearest(layer.max_streams, MAX_STREAMS),
        }
        timeout = nearest(layer.call_timeout, None)
        if timeout is not None:
            found["callTimeout"] = timeout
    return found | _rate("messages", layer.message_limit) | _rate("bytes", layer.byte_limit) | _connects(layer)


def _rate(name: str, given: Limit | EmptyType | None) -> Schema:
    limit = nearest(given, None)
    return {} if limit is None else {name: _limit(limit) | {"onExceed": limit.on_exceed}}


def _connects(layer: Layer) -> Schema:
    limits = [_limit(each) for each in layer.connect_limit if each is not None]
    return {"connects": limits} if limits else {}


def _limit(limit: Limit) -> Schema:
    return {"rate": limit.rate, "per": limit.per, "burst": limit.most}
