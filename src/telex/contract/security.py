"""The security schemes of a document: where the tokens of ``authenticate=`` may come from."""

from __future__ import annotations

from telex.contract.schemas import Schema
from telex.layers import nearest
from telex.plans import HandlerPlan

__all__ = ("schemes_of",)


def schemes_of(plan: HandlerPlan) -> dict[str, Schema]:
    """The ways in which a client of this route may give its token, by name; any one will do."""
    login = nearest(plan.layer.authenticate, None)
    if login is None:
        return {}
    if login.in_band:
        text = "The token comes in the first frame of telex.v1, auth."
        return {"in-band": {"type": "apiKey", "in": "password", "description": text}}
    found: dict[str, Schema] = {}
    if login.cookie is not None:
        found[f"cookie-{login.cookie}"] = {"type": "httpApiKey", "in": "cookie", "name": login.cookie}
    if login.bearer:
        found["bearer"] = {"type": "http", "scheme": "bearer"}
    if login.query is not None:
        found[f"query-{login.query}"] = {"type": "httpApiKey", "in": "query", "name": login.query}
    if login.subprotocol:
        text = "The token is offered as the subprotocol bearer.TOKEN, which is never selected."
        scheme = {"type": "httpApiKey", "in": "header", "name": "Sec-WebSocket-Protocol", "description": text}
        found["subprotocol"] = scheme
    return {"".join(each if each.isalnum() or each in "-_." else "-" for each in name): found[name] for name in found}
