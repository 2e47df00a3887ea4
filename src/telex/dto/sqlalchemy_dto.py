"""``SQLAlchemyDTO``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

from telex.annotations import read_hints, split_annotated, union_of
from telex.dto.base import AbstractDTO
from telex.dto.config import Mark, mark_of
from telex.dto.fields import DTOFieldDefinition
from telex.exceptions import ImproperlyConfiguredException, MissingDependencyException, SerializationException

try:
    import sqlalchemy
    from sqlalchemy import orm
    from sqlalchemy.ext.hybrid import HybridExtensionType
except ImportError as _missing:
    raise MissingDependencyException("sqlalchemy") from _missing

__all__ = ("SQLAlchemyDTO",)

T = TypeVar("T")
Getter = Callable[[Any], Any]


class SQLAlchemyDTO(AbstractDTO[T]):
    """The DTO for mapped classes of SQLAlchemy 2: columns, relationships, composites, column properties and hybrids.

    Generated primary keys, computed columns, column properties, hybrids and the discriminators of inheritance are
    read-only; a mark in ``info=`` overrides that. Clients may leave out fields that are nullable or have a default.

    **Writing uses no session**: an attribute that is not loaded raises an error that names it. Association proxies, and
    dynamic or write-only relationships, are not transferred.
    """

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether it is a mapped class."""
        return isinstance(sqlalchemy.inspect(model, raiseerr=False), orm.Mapper)

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """Columns, relationships and composites, then hybrids."""
        mapper: orm.Mapper[Any] = sqlalchemy.inspect(model)
        hints, constructor = _mapped_hints(mapper), _constructor_fields(model)
        for prop in (*mapper.column_attrs, *mapper.relationships, *mapper.composites):
            definition = _definition(prop, hints.get(prop.key), mapper)
            if definition is not None:
                yield _for_dataclass(definition, constructor) if constructor else definition
        for name, descriptor in mapper.all_orm_descriptors.items():
            if descriptor.extension_type is HybridExtensionType.HYBRID_PROPERTY:
                yield _hybrid(name, descriptor)


def _mapped_hints(mapper: orm.Mapper[Any]) -> dict[str, Any]:
    """The argument of each ``Mapped[...]``; empty where annotations cannot be resolved: the mapper has types then."""
    names = {other.class_.__name__: other.class_ for other in mapper.registry.mappers}
    try:
        hints = read_hints(mapper.class_, names)
    except ImproperlyConfiguredException:
        return {}
    return {name: get_args(hint)[0] for name, hint in hints.items() if _is_mapped(hint)}


def _is_mapped(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, orm.Mapped) and bool(get_args(hint))


def _definition(prop: Any, hint: Any, mapper: orm.Mapper[Any]) -> DTOFieldDefinition | None:
    if isinstance(prop, orm.ColumnProperty):
        return _column(prop, hint, mapper)
    if isinstance(prop, orm.RelationshipProperty):
        return _relationship(prop, hint, mapper)
    if isinstance(prop, orm.CompositeProperty):
        return DTOFieldDefinition(
            name=prop.key,
            annotation=prop.composite_class if hint is None else hint,
            optional=True,
            needed=False,
            mark=_mark(prop, hint),
            getter=_detached_getter(prop.key),
        )
    return None


def _column(prop: orm.ColumnProperty[Any], hint: Any, mapper: orm.Mapper[Any]) -> DTOFieldDefinition:
    columns = [each for each in prop.columns if isinstance(each, sqlalchemy.Column)]
    mark = _mark(prop, hint, *columns)
    made_for_it = (
        not columns or any(map(_is_generated, columns)) or any(each is mapper.polymorphic_on for each in columns)
    )
    has_default = any(each.default is not None or each.server_default is not None for each in columns)
    nullable = not columns or bool(columns[0].nullable)
    annotation = _python_type(prop.columns[0].type) if hint is None else hint
    return DTOFieldDefinition(
        name=prop.key,
        annotation=union_of(annotation, None) if nullable and hint is None else annotation,
        optional=nullable or made_for_it or has_default,
        needed=False,
        mark=Mark.READ_ONLY if mark is None and made_for_it else mark,
        getter=_loaded_getter(mapper.class_, prop.key, None, _REFRESH),
    )


def _is_generated(column: sqlalchemy.Column[Any]) -> bool:
    if column.computed is not None or (column.identity is not None and column.identity.always):
        return True
    if not column.primary_key:
        return False
    by_table = column.table is not None and column is column.table.autoincrement_column
    return by_table or any(each is not None for each in (column.default, column.server_default, column.identity))


def _python_type(kind: Any) -> Any:
    if isinstance(kind, sqlalchemy.JSON):
        return Any
    try:
        return kind.python_type
    except NotImplementedError:
        return Any


def _relationship(prop: Any, hint: Any, mapper: orm.Mapper[Any]) -> DTOFieldDefinition | None:
    if prop.lazy in {"dynamic", "write_only"}:
        return None
    mark = _mark(prop, hint)
    return DTOFieldDefinition(
        name=prop.key,
        annotation=_related(prop, mapper) if hint is None else hint,
        optional=True,
        needed=False,
        mark=Mark.READ_ONLY if mark is None and prop.viewonly else mark,
        getter=_loaded_getter(mapper.class_, prop.key, list if prop.uselist else None, _SELECT),
    )


def _related(prop: Any, mapper: orm.Mapper[Any]) -> Any:
    target, collection = prop.mapper.class_, prop.collection_class
    if not prop.uselist:
        return union_of(target, None)
    if collection in {None, list, set}:
        return (collection or list)[target]
    raise ImproperlyConfiguredException(
        f"{mapper.class_.__name__}.{prop.key} is a collection whose type must be annotated:"
        f" write Mapped[dict[..., {target.__name__}]], with names that are defined at run time"
    )


def _hybrid(name: str, descriptor: Any) -> DTOFieldDefinition:
    return DTOFieldDefinition(
        name=name,
        annotation=read_hints(descriptor.fget).get("return", Any),
        optional=True,
        mark=mark_of((getattr(descriptor, "info", {}),)) or Mark.READ_ONLY,
        needed=False,
        getter=_detached_getter(name),
    )


def _mark(prop: Any, hint: Any, *columns: Any) -> Mark | None:
    return mark_of((prop.info, *(each.info for each in columns), *split_annotated(hint)[1]))


def _constructor_fields(model: Any) -> Mapping[str, Any]:
    """The fields of a class that is mapped as a dataclass."""
    return {field.name: field for field in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else {}


def _for_dataclass(definition: DTOFieldDefinition, fields: Mapping[str, Any]) -> DTOFieldDefinition:
    """``definition``, for the constructor of the dataclass."""
    field = fields.get(definition.name)
    if field is None or not field.init:
        return dataclasses.replace(definition, init=False)
    has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return dataclasses.replace(definition, optional=has_default, needed=not has_default)


_SELECT = "load it in the query, as with selectinload({cls}.{name}), or exclude it"
_REFRESH = "await session.refresh(...) it, make the session with expire_on_commit=False, or exclude it"


def _loaded_getter(cls: type, name: str, empty: Callable[[], Any] | None, remedy: str) -> Getter:
    """Reads a loaded attribute; on an instance that was never saved, an attribute not set is ``None`` or empty."""
    where = f"{cls.__name__}.{name}"
    advice = remedy.format(cls=cls.__name__, name=name)

    def get(instance: Any) -> Any:
        values = instance.__dict__
        if name in values:
            return values[name]
        if orm.attributes.instance_state(instance).key is None:
            return None if empty is None else empty()
        raise SerializationException(f"{where} is not loaded, and writing does not use the session: {advice}")

    return get


def _detached_getter(name: str) -> Getter:
    """Reads an attribute that runs code of the model, with loading disabled."""

    def get(instance: Any) -> Any:
        state = orm.attributes.instance_state(instance)
        session, state.session_id = state.session_id, None
        try:
            return getattr(instance, name)
        except orm.exc.DetachedInstanceError as exc:
            raise SerializationException(
                f"{type(instance).__name__}.{name} needs an attribute that is not loaded, and writing does not"
                f" use the session: load the attribute before, or exclude {name!r}"
            ) from exc
        finally:
            state.session_id = session

    return get
