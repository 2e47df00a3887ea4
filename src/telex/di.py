"""Dependencies: matched by parameter name, resolved in dependency order, cleaned up in reverse order.

Every function of one handler (the handler itself, its hooks, its providers) is compiled against one list of *slots*. A
slot holds one value: the socket, a query parameter, a dependency. Each connection fills the slots in order, and calls
read them by index; there are no lookups by name at run time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypeVar

from telex import codecs
from telex.annotations import model_class
from telex.calls import Cache, Call, Slots, Step, provider_step
from telex.connection import Socket
from telex.datastructures import Empty
from telex.exceptions import ImproperlyConfiguredException
from telex.params import Parameter, RequestParameter, fill_parameters, request_parameter
from telex.renamed import litestars_names
from telex.reserved import RESERVED, RESERVED_KINDS, RESERVED_VALUES, accepts, fits, members_of
from telex.signatures import AnyCallable, Kind, ParameterInfo, Signature, describe, is_context_manager, read_signature
from telex.slow_callbacks import report_blocking
from telex.types import TypeDecoder

__all__ = ("Dependency", "Graph", "NamedDependency", "Provide", "Providers")

T = TypeVar("T")
Lifetime: TypeAlias = Literal["connection", "message"]

Built: TypeAlias = tuple[int, int, int]
"""The numbers of reserved values, parameters and providers in a graph."""


class Provide:
    """A provider: the callable that creates a dependency, and the dependency's lifetime.

    ``dependency`` is a function, coroutine function, generator, async generator, class or callable object; its
    parameters are injected too. ``scope="connection"`` creates the value once per connection and cleans it up when the
    connection ends; ``scope="message"`` creates it for each message and cleans it up after the reply.
    ``use_cache=True`` creates it once for the app. Sync providers run inline unless ``sync_to_thread=True``.
    """

    __slots__ = ("dependency", "scope", "sync_to_thread", "use_cache")

    def __init__(
        self,
        dependency: AnyCallable,
        *,
        use_cache: bool = False,
        sync_to_thread: bool = False,
        scope: Lifetime = "connection",
    ) -> None:
        if not callable(dependency):
            raise ImproperlyConfiguredException(
                f"Provide({dependency!r}): the provider must be callable; write Provide(lambda: {dependency!r})"
            )
        if scope not in {"connection", "message"}:
            raise ImproperlyConfiguredException(
                f"Provide({describe(dependency)}, scope={scope!r}): the scope is 'connection' or 'message'"
            )
        self.dependency: AnyCallable = dependency
        self.use_cache: bool = use_cache
        self.sync_to_thread: bool = sync_to_thread
        self.scope: Lifetime = scope

    def __repr__(self) -> str:
        return f"Provide({describe(self.dependency)}, scope={self.scope!r})"


Providers: TypeAlias = Mapping[str, Provide]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Marks a parameter as a dependency, with a default for when no layer provides it.

    The value comes from a provider or is the default; it is never read from the handshake and never validated.
    """

    default: object = Empty


_WITH_CLEANUP: Final = frozenset({Kind.GENERATOR, Kind.ASYNC_GENERATOR, Kind.MAYBE_GENERATOR})

NamedDependency = Annotated[T, Dependency()]
"""A parameter whose value comes from a layer's provider or is its default; it is never read from the handshake."""


class Graph:
    """Compiles the functions of one handler against its providers.

    :param where: the handler's description in error messages.
    :param path_names: the path parameters of the handler's route.
    :param providers: the merged dependencies.
    """

    def __init__(
        self,
        where: str,
        *,
        path_names: Collection[str] = (),
        providers: Providers | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        decoders: tuple[TypeDecoder, ...] = (),
        namespace: Mapping[str, object] | None = None,
        cache: Cache | None = None,
        debug: bool = False,
    ) -> None:
        self._path_names = frozenset(path_names)
        self._providers = dict(providers or {})
        self._parameters = dict(parameters or {})
        self._decoders = decoders
        self._namespace = dict(namespace or {})
        self._cache = cache or Cache()
        self._debug = debug
        self._reserved: dict[tuple[str, bool], int] = {}
        self._values: list[tuple[int, RequestParameter, Callable[[object], Any]]] = []
        self._resolved: dict[str, int] = {}
        self._connection_steps: list[Step] = []
        self.has_cleanup: bool = False
        """Whether a dependency may have to be closed with the connection."""
        self._message_steps: dict[int, Step] = {}
        self._providers_of_messages: dict[int, Signature] = {}
        self._ends_with_connection: dict[int, frozenset[str]] = {}
        """For each slot of a dependency, what it uses that is closed at the end of the connection."""
        self._requires: dict[int, tuple[int, ...]] = {}
        """For each slot of message scope, the slots to fill in order: those that it depends on, then itself."""
        self._size = 1
        self._building: list[str] = []
        self._check_names(where)

    DATA: Final = 0
    """The slot of the message."""

    def call(
        self, fn: AnyCallable, *, skip: Collection[str] = (), scope: Lifetime = "connection", in_thread: bool = False
    ) -> Call:
        """Compile ``fn``; ``skip`` names the parameters that the caller passes.

        :raises ImproperlyConfiguredException: a parameter has no provider, or dependencies form a cycle.
        """
        signature = read_signature(fn, self._namespace)
        in_thread = in_thread and signature.kind not in {Kind.ASYNC, Kind.ASYNC_GENERATOR}
        if self._debug and signature.kind is Kind.SYNC and not in_thread:
            fn = report_blocking(fn, signature.where)
        call = Call(fn, signature, self._arguments(signature, skip, scope), in_thread)
        if "data" in skip and "data" in signature:
            self._check_data(call)
        return call

    @property
    def request_parameters(self) -> tuple[RequestParameter, ...]:
        """The parameters read from the handshake, for API documents."""
        return tuple(parameter for _, parameter, _ in self._values)

    @property
    def provided(self) -> frozenset[str]:
        """The names of the dependencies that at least one function takes."""
        return frozenset(self._resolved)

    def is_per_message(self, call: Call) -> bool:
        """Whether ``call`` takes a dependency of message scope."""
        return bool(self._required(call))

    def closed_with_connection(self, call: Call) -> frozenset[str]:
        """The dependencies of ``call`` that are closed at the end of the connection: function, file and line."""
        found = (self._ends_with_connection.get(index, frozenset()) for _, index in call.arguments)
        return frozenset[str]().union(*found)

    @property
    def needs_resolving(self) -> bool:
        """Whether a connection has any slot to fill."""
        return bool(self._reserved or self._values or self._connection_steps or self._message_steps)

    @property
    def takes_socket(self) -> bool:
        """Whether a function takes the socket."""
        return any(name == "socket" for name, _ in self._reserved)

    @property
    def built(self) -> Built:
        """The numbers of values and steps compiled so far; later compiled ones are appended."""
        return len(self._reserved), len(self._values), len(self._connection_steps)

    def connection_resolver(
        self, since: Built = (0, 0, 0), until: Built | None = None
    ) -> Callable[[Socket, AsyncExitStack, Slots], Awaitable[None]]:
        """A function that fills the slots of a new connection that were built after ``since`` and up to ``until``.

        The function raises ``ValidationException``, which names every missing or invalid handshake parameter.
        """
        reserved_part, values_part, steps_part = map(slice, since, until or self.built)
        values, steps = tuple(self._values[values_part]), tuple(self._connection_steps[steps_part])
        reserved = tuple(
            (index, RESERVED_VALUES[name], plain) for (name, plain), index in [*self._reserved.items()][reserved_part]
        )

        async def resolve(socket: Socket, exits: AsyncExitStack, slots: Slots) -> None:
            for index, read, plain in reserved:
                slots[index] = read(socket, plain)
            if values:
                fill_parameters(socket, values, slots)
            for step in steps:
                await step(slots, exits)

        return resolve

    @property
    def size(self) -> int:
        """How many slots a connection has."""
        return self._size

    def message_resolver(self, call: Call) -> Callable[[Slots, object, AsyncExitStack], Awaitable[Slots]]:
        """A function that copies a connection's slots and fills those that ``call`` needs for one message."""
        steps = tuple(self._message_steps[slot] for slot in self._required(call))

        async def resolve(connection_slots: Slots, data: object, exits: AsyncExitStack) -> Slots:
            slots = connection_slots.copy()
            slots[Graph.DATA] = data
            for step in steps:
                await step(slots, exits)
            return slots

        return resolve

    # -- building

    def _check_names(self, where: str) -> None:
        for name in self._providers:
            if name in RESERVED:
                raise ImproperlyConfiguredException(
                    f"{where}: dependency {name!r} has a reserved name ({', '.join(sorted(RESERVED))}): rename it"
                )
            if name in self._path_names:
                raise ImproperlyConfiguredException(
                    f"{where}: {name!r} is both a path parameter and a dependency: rename one of them"
                )

    def _arguments(self, signature: Signature, skip: Collection[str], scope: Lifetime) -> tuple[tuple[str, int], ...]:
        found = ((parameter.name, self._slot(parameter, signature, scope)) for parameter in signature.without(*skip))
        return tuple((name, slot) for name, slot in found if slot is not None)

    def _slot(self, parameter: ParameterInfo, signature: Signature, scope: Lifetime) -> int | None:
        """The slot that ``parameter`` is read from; ``None`` leaves it at its own default."""
        inline = next((extra for extra in parameter.metadata if isinstance(extra, Provide)), None)
        if inline is not None:
            return self._dependency(f"{parameter.name} of {signature.where}", inline, scope, signature)
        if parameter.name in RESERVED:
            return self._reserved_slot(parameter, signature, scope)
        if parameter.name in self._providers:
            return self._dependency(parameter.name, self._providers[parameter.name], scope, signature)
        marked = next((extra for extra in parameter.metadata if isinstance(extra, Dependency)), None)
        if marked is None:
            request = request_parameter(parameter, self._path_names, self._parameters)
            if request is not None:
                return self._value_slot(request, signature)
        return self._default_slot(parameter, marked, signature)

    def _default_slot(self, parameter: ParameterInfo, marked: Dependency | None, signature: Signature) -> int | None:
        if parameter.has_default:
            return None
        if marked is not None and marked.default is not Empty:
            return self._constant_slot(marked.default)
        plugin = " plugins=[Channels(...)] to the app, or" if parameter.name == "channels" else ""
        raise ImproperlyConfiguredException(
            f"nothing provides parameter {parameter.name!r} of {signature.where}: add{plugin}"
            f" dependencies={{{parameter.name!r}: Provide(...)}} on the handler or a layer above it,"
            f" or annotate it FromQuery[...], FromHeader[...] or FromCookie[...]"
            f" (path parameters here: {', '.join(sorted(self._path_names)) or 'none'})"
        )

    def _check_data(self, call: Call) -> None:
        """Raise for a provider that ``call`` needs and whose ``data`` is of another type than that of ``call``."""
        takes = call.signature["data"].full_annotation
        for provider in (self._providers_of_messages[slot] for slot in self._required(call)):
            if "data" in provider and not accepts(provider["data"].full_annotation, takes):
                raise ImproperlyConfiguredException(
                    f"'data' of {provider.where} is annotated {provider['data'].full_annotation!r}, but it gets the"
                    f" messages of {call.signature.where}, which are {takes!r}: annotate both the same, or 'data' of"
                    " the provider with a type that includes the other, such as Any"
                )

    def _required(self, call: Call) -> tuple[int, ...]:
        """The slots of message scope to fill before ``call``, in order."""
        slots = (required for _, index in call.arguments for required in self._requires.get(index, ()))
        return tuple(dict.fromkeys(slots))

    def _constant_slot(self, value: object) -> int:
        index = self._new_slot()

        async def fill(slots: Slots, _: AsyncExitStack) -> None:
            slots[index] = value

        self._connection_steps.append(fill)
        return index

    def _reserved_slot(self, parameter: ParameterInfo, signature: Signature, scope: Lifetime) -> int:
        if parameter.name == "data":
            if scope != "message":
                raise ImproperlyConfiguredException(
                    f"{signature.where} has a parameter 'data', but it does not run for a message:"
                    " only listeners and providers with scope='message' can take 'data'"
                )
            return Graph.DATA
        meaning, kinds = RESERVED_KINDS[parameter.name]
        if not fits(parameter.annotation, kinds):
            names = " or ".join(each.__name__ for each in kinds)
            raise ImproperlyConfiguredException(
                f"{parameter.name!r} of {signature.where} is a reserved name: {meaning}, a {names}, not"
                f" {parameter.annotation!r}: annotate it so, or rename the"
                f" parameter (Annotated[..., Parameter(query={parameter.name!r})] keeps its name in the query)"
            )
        key = (parameter.name, dict in {model_class(each) for each in members_of(parameter.annotation)})
        if key not in self._reserved:
            self._reserved[key] = self._new_slot()
        return self._reserved[key]

    def _value_slot(self, request: RequestParameter, signature: Signature) -> int:
        if request.source == "path" and request.alias not in self._path_names:
            raise ImproperlyConfiguredException(
                f"{request.name!r} of {signature.where} is FromPath, but the path has no {{{request.alias}}}"
            )
        index = self._new_slot()
        try:
            to_type = codecs.convert(request.annotation, self._decoders)
        except ImproperlyConfiguredException as exc:
            raise ImproperlyConfiguredException(f"{request.name!r} of {signature.where}: {exc.detail}") from exc
        self._values.append((index, request, to_type))
        return index

    def _dependency(self, key: str, provider: Provide, scope: Lifetime, wanted_by: Signature) -> int:
        if key in self._building:
            chain = " -> ".join([*self._building[self._building.index(key) :], key])
            raise ImproperlyConfiguredException(
                f"dependencies form a cycle: {chain} ({describe(provider.dependency)}):"
                " remove one of these dependencies from the other's parameters"
            )
        if key not in self._resolved:
            self._building.append(key)
            self._resolved[key] = self._add_provider(provider)
            self._building.pop()
        index = self._resolved[key]
        if scope == "connection" and index in self._message_steps:
            raise ImproperlyConfiguredException(
                f"{wanted_by.where} lives as long as the connection, but {key!r} ({describe(provider.dependency)})"
                " lives for one message: give both the same scope"
            )
        return index

    def _add_provider(self, provider: Provide) -> int:
        scope: Lifetime = "connection" if provider.use_cache else provider.scope
        call = self.call(provider.dependency, scope=scope, in_thread=provider.sync_to_thread)
        if is_context_manager(provider.dependency):
            raise ImproperlyConfiguredException(
                f"{call.signature.where} is a context manager: remove the decorator, because Telex runs generators"
                " as context managers"
            )
        if provider.use_cache and call.signature.kind in {Kind.GENERATOR, Kind.ASYNC_GENERATOR}:
            raise ImproperlyConfiguredException(
                f"{call.signature.where} is a generator, which needs a cleanup: remove use_cache=True, or return the"
                " value instead of yielding it"
            )
        index = self._new_slot()
        ends = self.closed_with_connection(call)
        if scope == "connection" and call.signature.kind in _WITH_CLEANUP:
            ends |= {call.signature.where}
            self.has_cleanup = True
        self._ends_with_connection[index] = ends
        step = provider_step(call, index, provider if provider.use_cache else None, self._cache)
        if scope == "message":
            self._message_steps[index] = step
            self._providers_of_messages[index] = call.signature
            self._requires[index] = (*self._required(call), index)
        else:
            self._connection_steps.append(step)
        return index

    def _new_slot(self) -> int:
        self._size += 1
        return self._size - 1


if not TYPE_CHECKING:
    # With a visible __getattr__, type checkers would accept any name of this module.
    __getattr__ = litestars_names(__name__)
