"""One route of a document: its channel, and its operations."""

from __future__ import annotations

from typing import Any

import msgspec

from telex.contract.errors import TELEX_ERROR, declared_error, public_fields
from telex.contract.messages import MESSAGES, Members, Messages, message_refs
from telex.contract.parameters import Handshake, address_of
from telex.contract.schemas import Schema, Schemas
from telex.contract.security import schemes_of
from telex.contract.settings import close_codes_of, denials_of, limits_of
from telex.handlers.channel_frames import HistoryCall
from telex.paths import PathTemplate
from telex.plans import HandlerPlan, MessageShape, Operation
from telex.protocol.failures import code_of

__all__ = ("Route",)


class Receipt(msgspec.Struct, omit_defaults=True):
    """The answer to a message that is published: the position of the event, where the channel has history."""

    position: str = ""


class PastEvent(msgspec.Struct, omit_defaults=True):
    """One event of a page: its data, or bytes in base64."""

    position: str
    data: Any = None
    base64: str = ""


class HistoryPage(msgspec.Struct):
    """Events of a channel, oldest first; ``more`` says whether there are others before them."""

    events: list[PastEvent]
    more: bool


class Route:
    """One plan in a document. Its types are collected first; it is written once all schemas are."""

    def __init__(self, key: str, plan: HandlerPlan, schemas: Schemas, messages: Messages) -> None:
        self.key = key
        self.plan = plan
        self._messages = messages
        self._handshake = Handshake(plan, schemas)
        self._operations = [self._collect(each, asks=False) for each in _operations_of(plan)]
        self._asks = [self._collect(each, asks=True) for each in plan.asks]
        self._pushes = [messages.collect(each, plan, "send") for each in plan.pushes]
        self._errors = [(kind, self._collect_error(kind, schemas)) for kind in plan.layer.errors]
        self._used: dict[str, None] = {}

    def _collect(self, operation: Operation, *, asks: bool) -> tuple[Operation, Members, Members | None]:
        collect, plan = self._messages.collect, self.plan
        takes = collect(operation.takes, plan, "send" if asks else "receive")
        if operation.answers is None:
            return operation, takes, None
        return operation, takes, collect(operation.answers, plan, "receive" if asks else "send")

    def _collect_error(self, kind: type[Exception], schemas: Schemas) -> Any:
        fields = {
            name: schemas.add(hint, "send", by_pydantic=False) for name, hint in sorted(public_fields(kind).items())
        }
        return lambda: {name: write() for name, write in fields.items()}

    def write(self) -> tuple[Schema, dict[str, Schema]]:
        """The channel, and the operations by their names."""
        errors = self._error_messages()
        operations: dict[str, Schema] = {}
        for operation, takes, answers in self._operations:
            self._add_received(operations, operation, takes, answers, errors)
        self._add_sent(operations, errors)
        for operation, takes, answers in self._asks:
            self._add_asked(operations, operation, takes, answers)
        return self._channel(), operations

    def _channel(self) -> Schema:
        plan = self.plan
        channel: Schema = {"address": address_of(PathTemplate.parse(plan.path))}
        if plan.name:
            channel["title"] = plan.name
        channel["messages"] = {name: {"$ref": MESSAGES + name} for name in self._used}
        path = self._handshake.path()
        if path:
            channel["parameters"] = path
        channel["bindings"] = self._handshake.bindings()
        channel["x-telex-kind"] = plan.kind
        channel["x-telex-protocols"] = ["telex.v1", "plain"] if plan.speaks_frames else ["plain"]
        if plan.channel is not None:
            channel["x-telex-channel"] = {
                **({"name": plan.channel.name} if plan.channel.name else {}),
                "history": plan.channel.keeps,
                "presence": plan.channel.has_presence,
            }
        channel["x-telex-close-codes"] = close_codes_of(plan)
        channel["x-telex-denials"] = denials_of(plan, checks_values=self._handshake.checks_values)
        channel["x-telex-limits"] = limits_of(plan)
        return channel

    # -- operations

    def _add_received(
        self,
        operations: dict[str, Schema],
        operation: Operation,
        takes: Members,
        answers: Members | None,
        errors: list[str],
    ) -> None:
        taken = self._add_messages(takes)
        replies = self._add_messages(answers) if answers is not None else []
        for name in taken:
            found = self._operation("receive", [name])
            if operation.description:
                summary, _, rest = operation.description.partition("\n\n")
                found["summary"] = " ".join(summary.split())
                if rest:
                    found["description"] = operation.description
            if replies or (self.plan.speaks_frames and self.plan.kind != "websocket"):
                found["reply"] = self._reply([*replies, *errors])
                if not replies:
                    found["x-telex-empty-reply"] = True
            if operation.idempotent:
                found["x-telex-idempotent"] = True
            if operation.parts:
                found["x-telex-stream"] = True
            operations[f"{self.key}.receive.{name}"] = found

    def _add_sent(self, operations: dict[str, Schema], errors: list[str]) -> None:
        pushed = [name for each in self._pushes for name in self._add_messages(each)]
        if not pushed and self.plan.kind in {"websocket", "multiplex"}:
            return
        found = self._operation("send", list(dict.fromkeys([*pushed, *errors])))
        if self.plan.channel is not None:
            found["x-telex-events"] = True
        operations[f"{self.key}.send"] = found

    def _add_asked(
        self, operations: dict[str, Schema], operation: Operation, takes: Members, answers: Members | None
    ) -> None:
        replies = self._add_messages(answers) if answers is not None else []
        for name in self._add_messages(takes):
            operations[f"{self.key}.ask.{name}"] = self._operation("send", [name]) | {"reply": self._reply(replies)}

    def _operation(self, action: str, names: list[str]) -> Schema:
        channel = {"$ref": f"#/channels/{self.key}"}
        found = {"action": action, "channel": channel, "messages": message_refs(self.key, names)}
        security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes_of(self.plan)]
        return found | ({"security": security} if security else {})

    def _reply(self, names: list[str]) -> Schema:
        unique = list(dict.fromkeys(names))
        return {"channel": {"$ref": f"#/channels/{self.key}"}, "messages": message_refs(self.key, unique)}

    # -- messages

    def _add_messages(self, members: Members) -> list[str]:
        names = [
            self._use(self._messages.add(payload, content_type, in_frames=self.plan.speaks_frames))
            for payload, content_type in members()
        ]
        return list(dict.fromkeys(names))

    def _error_messages(self) -> list[str]:
        if self.plan.kind in {"websocket", "multiplex"}:
            return []
        in_frames = self.plan.speaks_frames
        names = [
            self._messages.add(_declared(kind, write()), name=code_of(kind), in_frames=in_frames)
            for kind, write in self._errors
        ]
        own = self._messages.add(TELEX_ERROR, name="error", in_frames=in_frames)
        return [self._use(name) for name in (own, *names)]

    def _use(self, name: str) -> str:
        self._used[name] = None
        return name


def _declared(kind: type[Exception], fields: dict[str, Schema]) -> Schema:
    if not fields:
        return declared_error(kind, None)
    return declared_error(kind, {"type": "object", "properties": fields, "required": list(fields)})


def _operations_of(plan: HandlerPlan) -> tuple[Operation, ...]:
    """The operations of a plan; those of a channel handler are answered with positions and pages."""
    if plan.channel is None or not plan.speaks_frames:
        return plan.operations
    receipt, page = MessageShape(Receipt, "text"), MessageShape(HistoryPage, "text")
    published = tuple(Operation(each.takes, receipt, description=each.description) for each in plan.operations)
    return (*published, Operation(MessageShape(HistoryCall, "text"), page)) if plan.channel.keeps else published
