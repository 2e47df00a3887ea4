"""Compiles a DTO's readers and writers: a wire type, and the expression that converts to or from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import msgspec

from telex import codecs
from telex.annotations import model_class, split_annotated, substitute, unalias, union_members
from telex.codecs import Reader, Writer
from telex.dto.base import AbstractDTO, name_of
from telex.dto.code import VALUE, Code
from telex.dto.compilation import Compilation
from telex.dto.containers import is_container, transfer_container
from telex.dto.data import DTOData
from telex.dto.failures import refuse, unwritable
from telex.dto.field_paths import FieldPath
from telex.dto.models import compile_model, node_of
from telex.dto.nodes import Shape
from telex.dto.unions import compile_union
from telex.exceptions import ImproperlyConfiguredException
from telex.types import Mode, TypeDecoder, TypeEncoder

__all__ = ("dto_reader", "dto_wire", "dto_writer")


def dto_reader(
    dto: type[AbstractDTO[Any]], annotation: Any, mode: Mode, decoders: Sequence[TypeDecoder], where: str
) -> Reader:
    """The function that decodes a ``mode`` message as ``annotation``. ``where`` names the handler in errors.

    :raises ImproperlyConfiguredException: the annotation, a model or the configuration does not allow it.
    """
    shape, code = _compile(dto, annotation, where, to_wire=False)
    try:
        decode = codecs.reader(shape.wire, mode, decoders)
    except ImproperlyConfiguredException as exc:
        raise ImproperlyConfiguredException(
            f"{where}: {dto.__qualname__} cannot read {annotation!r}: {exc.detail}"
        ) from exc
    if shape.source is None:
        return decode
    lines = [
        f"w = {code.bind(decode, 'decode')}({VALUE})",
        "try:",
        f"    return {shape.transfer('w')}",
        f"except {code.bind((ValueError, TypeError), 'errors')} as e:",
        f"    return {code.bind(refuse, 'refuse')}(w, e)",
    ]
    read: Reader = code.define(code.reserve("read"), lines)
    return read


def dto_writer(
    dto: type[AbstractDTO[Any]], annotation: Any, mode: Mode, encoders: Mapping[type, TypeEncoder], where: str
) -> Writer:
    """The function that encodes a value declared as ``annotation`` as a ``mode`` message.

    :raises ImproperlyConfiguredException: the annotation, a model or the configuration does not allow it.
    """
    shape, code = _compile(dto, annotation, where, to_wire=True)
    encode = code.bind(msgspec.json.Encoder(enc_hook=codecs.encoder_hook(encoders)).encode, "encode")
    title = code.bind(f"{dto.__qualname__}: {annotation!r}", "title")
    lines = [
        "try:",
        f"    w = {shape.transfer()}",
        "except (AttributeError, KeyError, TypeError) as e:",
        f"    raise {code.bind(unwritable, 'unwritable')}({VALUE}, {title}, e) from e",
        f"return {encode}(w){'.decode()' if mode == 'text' else ''}",
    ]
    write: Writer = code.define(code.reserve("write"), lines)
    return write


def dto_wire(dto: type[AbstractDTO[Any]], annotation: Any, where: str, *, to_wire: bool) -> Any:
    """The type of the messages that a reader (``to_wire`` false) or writer of this DTO decodes or encodes."""
    return _compile(dto, annotation, where, to_wire=to_wire)[0].wire


def _compile(dto: type[AbstractDTO[Any]], annotation: Any, where: str, *, to_wire: bool) -> tuple[Shape, Code]:
    if not dto.models:
        raise ImproperlyConfiguredException(f"{where}: {dto.__qualname__} has no model: write {dto.__name__}[Model]")
    if not dto.fits(annotation):
        role, option = ("the reply", "return_dto") if to_wire else ("data", "dto")
        names = " | ".join(map(name_of, dto.models))
        raise ImproperlyConfiguredException(
            f"{where}: {role} is annotated {annotation!r}, and {dto.__qualname__} is for {names}: annotate"
            f" {role} with {names}, a collection of it or a union with it, or set {option}=None here"
        )
    compiler = _Compiler(dto, to_wire=to_wire)
    try:
        return compiler.shape(annotation, FieldPath.of(dto.config, dto.__qualname__)), compiler.code
    except ImproperlyConfiguredException as exc:
        raise ImproperlyConfiguredException(f"{where}: {exc.detail}") from exc


class _Compiler(Compilation):
    def shape(self, annotation: Any, path: FieldPath) -> Shape:
        """See :meth:`Compilation.shape`."""
        inner, extras = split_annotated(annotation)
        if isinstance(inner, TypeVar):
            inner = substitute(inner, {})
        inner = unalias(inner)
        if get_origin(inner) is Annotated:
            return self.shape(inner, path)
        shape = self._structure(inner, path)
        if shape is None:
            path.check_numbers(0, annotation)
            return Shape(Any if path.plain else annotation)
        if extras and not path.plain:
            return Shape(Annotated[shape.wire, *extras], shape.source, shape.node)
        return shape

    def _structure(self, annotation: Any, path: FieldPath) -> Shape | None:
        """The shape of an annotation that is or contains a model; ``None`` for other annotations."""
        kind, origin = self.kind(annotation, path), get_origin(annotation)
        if kind is not None:
            return compile_model(self, annotation, kind, path)
        if origin is Literal or not self.holds_model(annotation, path):
            return None
        if origin is DTOData:
            return self._data(get_args(annotation)[0], path)
        if union_members(annotation):
            return compile_union(self, annotation, path)
        if is_container(origin):
            return self._container(annotation, origin, path)
        raise path.wrong(
            f"{path.trail or 'the annotation'} is {annotation!r}: models are not transferred inside"
            f" {model_class(annotation)!r}; use list, tuple, set, dict or a union"
        )

    def _container(self, annotation: Any, origin: Any, path: FieldPath) -> Shape:
        arguments = get_args(annotation)
        path.check_numbers(len(arguments), annotation)
        shapes = [
            self.shape(argument, path.step(str(index), f"{path.trail}.{index}") if path.depth else path)
            for index, argument in enumerate(arguments)
            if argument is not ...
        ]
        if all(shape.source is None for shape in shapes) and not path.plain:
            return Shape(annotation)
        return transfer_container(self.code, origin, arguments, shapes, self.to_wire or path.plain)

    def _data(self, model: Any, path: FieldPath) -> Shape:
        if self.to_wire:
            raise path.wrong(f"DTOData[{model!r}] is for messages that are received: annotate the reply {model!r}")
        kind = self.kind(model, path)
        if kind is None:
            raise path.wrong(f"DTOData[{model!r}] holds one model of this DTO; write list[DTOData[...]] for several")
        node = node_of(self, model, kind, path.lazily())
        name = self.code.bind(partial(DTOData, node), "data")
        return Shape(node.wire, f"{name}({VALUE})", node)
