"""What a new version of an app changes for clients of the old one, by direction.

What the server receives may widen, what it sends may narrow. Everything else breaks a client that was made for the old
contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from telex.contract.schemas import Schema
from telex.contract.subsets import Mismatch, Side, mismatches, shown
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("Difference", "compare", "report")

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between two documents: where, what, and whether clients in the field may break."""

    where: str
    what: str
    is_breaking: bool

    def __str__(self) -> str:
        return f"{'breaking' if self.is_breaking else 'ok      '}  {self.where}: {self.what}"


def compare(old: Document, new: Document) -> list[Difference]:
    """All differences that matter to clients of the app that ``old`` describes.

    :raises ImproperlyConfiguredException: ``old`` is no document of Telex.
    """
    for key in ("channels", "operations", "components"):
        if not isinstance(old.get(key), Mapping):
            raise ImproperlyConfiguredException(f"the old document has no {key!r}: give one that telex asyncapi wrote")
    return list(dict.fromkeys(_compare(old, new)))


def report(differences: Iterable[Difference]) -> str:
    """The differences as lines, those that break first."""
    found = sorted(differences, key=lambda each: not each.is_breaking)
    return "\n".join(map(str, found)) if found else "no difference that matters to clients"


def _compare(old: Document, new: Document) -> Iterator[Difference]:
    before, after = _routes(old), _routes(new)
    for address, route in before.items():
        if address not in after:
            yield Difference(address, "the path is gone", is_breaking=True)
        else:
            yield from _Comparison(address, route, after[address]).differences()
    for address in after.keys() - before.keys():
        yield Difference(address, "the path is new", is_breaking=False)


@dataclass(frozen=True, slots=True)
class _Channel:
    channel: Schema
    document: Document
    operations: dict[str, Schema]
    """By what they are: ``receive.say``, ``send``, ``ask.confirm``."""

    def messages(self, operation: Schema) -> dict[str, Schema]:
        names = [each["$ref"].rpartition("/")[2] for each in operation.get("messages", ())]
        found = [self.document["components"]["messages"][name] for name in names]
        return {each["name"]: each for each in found}

    def side(self, schema: Schema) -> Side:
        return Side(schema, self.document["components"]["schemas"])


def _routes(document: Document) -> dict[str, _Channel]:
    found: dict[str, _Channel] = {}
    for key, channel in document["channels"].items():
        operations: dict[str, Schema] = {}
        for name, operation in document["operations"].items():
            if operation["channel"]["$ref"] == f"#/channels/{key}":
                operations[name.removeprefix(f"{key}.")] = operation
        found[channel["address"]] = _Channel(channel, document, operations)
    return found


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One path in both documents."""

    where: str
    old: _Channel
    new: _Channel

    def differences(self) -> Iterator[Difference]:
        yield from self._handshake()
        yield from self._channel()
        yield from self._limits()
        yield from self._received()
        yield from self._pushed()
        yield from self._asked()

    # -- the handshake

    def _handshake(self) -> Iterator[Difference]:
        old, new = self.old.channel, self.new.channel
        for name, parameter in old.get("parameters", {}).items():
            other = new.get("parameters", {}).get(name, {})
            schemas = parameter.get("x-telex-schema", {}), other.get("x-telex-schema", {})
            yield from self._schemas(f"path parameter {name}", *schemas, sent=False)
        for part in ("query", "headers"):
            schemas = tuple(each["bindings"]["ws"].get(part, {"type": "object"}) for each in (old, new))
            yield from self._schemas(f"{part} of the handshake", *schemas, sent=False)
        cookies = [_cookies(each) for each in (old, new)]
        yield from self._schemas("cookies of the handshake", *cookies, sent=False)
        yield from self._logins()

    def _logins(self) -> Iterator[Difference]:
        old, new = (_logins(each.operations) for each in (self.old, self.new))
        if new and not old:
            yield self._breaks("the handshake", f"a token is required now: {', '.join(sorted(new))}")
        for name in sorted(old - new):
            if new:
                yield self._breaks("the handshake", f"the token is not taken from {name} any more")
        for name in sorted(new - old):
            if old:
                yield self._allows("the handshake", f"the token may come from {name} too")

    def _channel(self) -> Iterator[Difference]:
        for key, text in (("history", "has no history any more"), ("presence", "shows no presence any more")):
            old, new = (each.channel.get("x-telex-channel", {}).get(key, False) for each in (self.old, self.new))
            if old and not new:
                yield self._breaks("the channel", text)
        for name in self.old.channel["x-telex-protocols"]:
            if name not in self.new.channel["x-telex-protocols"]:
                yield self._breaks("the handshake", f"the route does not speak {name} any more")
        old_routes, new_routes = (_opened(each) for each in (self.old, self.new))
        for address in sorted(old_routes - new_routes):
            yield self._breaks("routes", f"{address} cannot be opened on this socket any more")

    def _limits(self) -> Iterator[Difference]:
        old, new = (each.channel["x-telex-limits"] for each in (self.old, self.new))
        sizes = old["maxMessageSize"], new["maxMessageSize"]
        if sizes[0] != sizes[1]:
            text = f"messages have at most {sizes[1]} bytes, where it was {sizes[0]}"
            yield Difference(f"{self.where} limits", text, is_breaking=sizes[1] < sizes[0])
        for key in ("messages", "bytes"):
            limit, before = new.get(key), old.get(key)
            if limit != before:
                tighter = limit is not None and not (before and _allows_at_least(limit, before))
                text = f"{key} are limited to {_rate(limit)}, where it was {_rate(before)}"
                breaks = tighter and limit["onExceed"] != "wait"
                yield Difference(f"{self.where} limits", text, is_breaking=breaks)

    # -- operations

    def _received(self) -> Iterator[Difference]:
        known: set[str] = set()
        for name, operation in self._of(self.old, "receive."):
            what = f"client sends {name.removeprefix('receive.')}"
            found = self._same(name, operation)
            if found is None:
                yield self._breaks(what, "the server does not take it any more")
                continue
            known.add(found)
            other = self.new.operations[found]
            yield from self._messages(what, operation, other, sent=False)
            yield from self._replies(what, operation, other)
        for name, _ in self._of(self.new, "receive."):
            if name not in known:
                yield self._allows(f"client sends {name.removeprefix('receive.')}", "the server takes it now")

    def _same(self, name: str, operation: Schema) -> str | None:
        """The new operation that takes what an old one took: of the same name, or of a type that fits."""
        if name in self.new.operations:
            return name
        (message,) = self.old.messages(operation).values()
        for other, found in self._of(self.new, "receive."):
            if any(self._fit(message, each, sent=False) for each in self.new.messages(found).values()):
                return other
        return None

    def _replies(self, what: str, old: Schema, new: Schema) -> Iterator[Difference]:
        what = what.replace("client sends", "answer to")
        streams = bool(old.get("x-telex-stream")), bool(new.get("x-telex-stream"))
        if streams[0] != streams[1]:
            yield self._breaks(what, "it comes in parts now" if streams[1] else "it does not come in parts any more")
            return
        took_key, takes_key = (bool(each.get("x-telex-idempotent")) for each in (old, new))
        if took_key and not takes_key:
            yield self._breaks(what, "calls may not carry a key any more")
        elif takes_key and not took_key:
            yield self._allows(what, "calls may carry a key now")
        if new.get("x-telex-empty-reply") and not old.get("x-telex-empty-reply") and "reply" in old:
            yield self._breaks(what, "it is empty now")
            return
        yield from self._messages(what, old.get("reply", {}), new.get("reply", {}), sent=True)

    def _pushed(self) -> Iterator[Difference]:
        old, new = self.old.operations.get("send"), self.new.operations.get("send")
        if new is not None:
            yield from self._messages("server sends", old or {}, new, sent=True)
        elif old is not None:
            yield self._allows("server sends", "it sends nothing by itself any more")

    def _asked(self) -> Iterator[Difference]:
        for name, operation in self._of(self.new, "ask."):
            what = f"server asks {name.removeprefix('ask.')}"
            old = self.old.operations.get(name)
            if old is None:
                yield self._breaks(what, "it is new: clients in the field have no answer to it")
                continue
            yield from self._messages(what, old, operation, sent=True)
            answer = what.replace("server asks", "client answers")
            yield from self._messages(answer, old.get("reply", {}), operation.get("reply", {}), sent=False)
        for name, _ in self._of(self.old, "ask."):
            if name not in self.new.operations:
                yield self._allows(f"server asks {name.removeprefix('ask.')}", "it does not ask this any more")

    def _of(self, channel: _Channel, prefix: str) -> list[tuple[str, Schema]]:
        return [(name, each) for name, each in channel.operations.items() if name.startswith(prefix)]

    # -- messages

    def _messages(self, what: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Difference]:
        """Compare the members of two unions: each of the source must be one of the target."""
        before, after = self.old.messages(old), self.new.messages(new)
        source, target = (after, before) if sent else (before, after)
        for name, message in source.items():
            if _is_error(message):
                if name not in target:
                    yield self._allows(what, f"the error {name} is {'new' if sent else 'gone'}")
                continue
            other = target.get(name) or next(
                (each for each in target.values() if self._fit(message, each, sent=sent)), None
            )
            if other is None:
                text = (
                    "is new: a client without a default branch does not expect it" if sent else "is not taken any more"
                )
                yield self._breaks(what, f"{name} {text}")
            else:
                yield from self._pair(what, *((other, message) if sent else (message, other)), sent=sent)
        for name, message in target.items():
            if name not in source and not _is_error(message):
                others = source.values()
                if not any(self._fit(other, message, sent=sent) for other in others):
                    yield self._allows(what, f"{name} is {'not sent any more' if sent else 'taken too'}")

    def _fit(self, source: Schema, target: Schema, *, sent: bool) -> bool:
        if source["contentType"] != target["contentType"]:
            return False
        homes = (self.new, self.old) if sent else (self.old, self.new)
        return not mismatches(homes[0].side(source["payload"]), homes[1].side(target["payload"]), reads=sent)

    def _pair(self, what: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Difference]:
        if old["contentType"] != new["contentType"]:
            yield self._breaks(what, f"it is {new['contentType']} now, where it was {old['contentType']}")
            return
        yield from self._schemas(what, old["payload"], new["payload"], sent=sent)

    def _schemas(self, what: str, old: Schema, new: Schema, *, sent: bool) -> Iterator[Difference]:
        """Compare two schemas of the same thing; ``sent`` says whether the server sends it."""
        before, after = self.old.side(old), self.new.side(new)
        source, target = (after, before) if sent else (before, after)
        breaking = mismatches(source, target, reads=sent)
        for each in breaking:
            yield self._breaks(what, _changed(each, sent=sent))
        places = {each.path for each in breaking}
        for each in mismatches(target, source, reads=False):
            if each.path not in places:
                yield self._allows(what, _changed(each, sent=not sent))
                places.add(each.path)
        for path, text in _fields(before, after, "$", frozenset()):
            if path not in places:
                yield self._allows(what, f"{path} {text}")

    def _breaks(self, what: str, text: str) -> Difference:
        return Difference(f"{self.where} {what}", text, is_breaking=True)

    def _allows(self, what: str, text: str) -> Difference:
        return Difference(f"{self.where} {what}", text, is_breaking=False)


def _changed(each: Mismatch, *, sent: bool) -> str:
    now, before = (each.narrower, each.wider) if sent else (each.wider, each.narrower)
    return f"{each.path}: {now}, where it was: {before}"


def _fields(old: Side, new: Side, path: str, seen: frozenset[Any]) -> Iterator[tuple[str, str]]:
    """The fields that only one of two objects has."""
    old, new = old.plain, new.plain
    key = (shown(old), shown(new))
    if key in seen:
        return
    fields, others = old.schema.get("properties", {}), new.schema.get("properties", {})
    for name in fields.keys() | others.keys():
        inner = f"{path}.{name}"
        if name not in others:
            yield inner, "is not there any more"
        elif name not in fields:
            yield inner, "is new"
        else:
            yield from _fields(old.of(fields[name]), new.of(others[name]), inner, seen | {key})


def _is_error(message: Schema) -> bool:
    properties = message["payload"].get("properties", {})
    return bool(properties.get("type", {}).get("const") == "error") and "error" in properties


def _cookies(channel: Schema) -> Schema:
    headers = channel["bindings"]["ws"].get("headers", {}).get("properties", {})
    found: Schema = headers.get("Cookie", {}).get("x-telex-cookies", {"type": "object"})
    return found


def _logins(operations: Mapping[str, Schema]) -> set[str]:
    return {
        each["$ref"].rpartition("/")[2] for operation in operations.values() for each in operation.get("security", ())
    }


def _opened(channel: _Channel) -> set[str]:
    keys = [each["$ref"].rpartition("/")[2] for each in channel.channel.get("x-telex-routes", ())]
    return {channel.document["channels"][key]["address"] for key in keys}


def _allows_at_least(limit: Schema, before: Schema) -> bool:
    faster = limit["rate"] / limit["per"] >= before["rate"] / before["per"]
    return bool(faster and limit["burst"] >= before["burst"] and limit["onExceed"] == before["onExceed"])


def _rate(limit: Schema | None) -> str:
    return "none" if limit is None else f"{limit['rate']:g} per {limit['per']:g} s, {limit['burst']:g} at once"
