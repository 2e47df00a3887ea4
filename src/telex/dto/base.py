"""``AbstractDTO``, the base class of all DTOs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar, get_args

from telex.annotations import model_class, split_annotated, unalias, union_members
from telex.dto.config import DTOConfig
from telex.dto.fields import DTOFieldDefinition
from telex.exceptions import ImproperlyConfiguredException

__all__ = ("AbstractDTO", "name_of")

T = TypeVar("T")


class AbstractDTO(Generic[T]):
    """Converts between messages and models: it selects the fields of a model and their names on the wire.

    A DTO is a class, given as ``dto`` or ``return_dto`` on any layer. It combines the DTO class of a kind of model with
    a model, and has a configuration in ``Annotated`` or as an attribute::

        UserDTO = DataclassDTO[Annotated[User, DTOConfig(exclude={"password"})]]

        class UserDTO(DataclassDTO[User]):
            config = DTOConfig(exclude={"password"})

    It applies to annotations that are the model or a subclass of it, that contain it in a collection or a union, and to
    ``DTOData`` of the model.

    **A DTO for another kind of model** is a subclass that defines :meth:`detect_nested_field` and
    :meth:`generate_field_definitions`. The other methods have defaults for models whose constructor takes fields by
    name and whose instances have them as attributes.
    """

    config: ClassVar[DTOConfig] = DTOConfig()
    models: ClassVar[tuple[Any, ...]] = ()
    """The model; several if the type argument is a union."""
    native: ClassVar[bool] = False
    """Whether msgspec decodes such models as this DTO does without a configuration."""
    by_items: ClassVar[bool] = False
    """Whether instances are dictionaries."""
    plain: ClassVar[bool] = False
    """Whether the models' library converts them from and to plain dictionaries: see :meth:`from_plain` and
    :meth:`to_plain`. That library, not msgspec, then validates the types of fields."""

    def __class_getitem__(cls, model: Any) -> Any:
        if cls is AbstractDTO or isinstance(model, TypeVar):
            return super().__class_getitem__(model)  # type: ignore[misc]
        inner, extras = split_annotated(model)
        configs = [each for each in extras if isinstance(each, DTOConfig)]
        models = union_members(unalias(inner)) or (unalias(inner),)
        for each in models:
            cls._check_model(each)
        name = f"{cls.__name__}[{' | '.join(name_of(each) for each in models)}]"
        attributes: dict[str, Any] = {"models": models, "__module__": cls.__module__, "__qualname__": name}
        if configs:
            attributes["config"] = configs[0]
        return type(name, (cls,), attributes)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not isinstance(cls.config, DTOConfig):
            raise ImproperlyConfiguredException(f"{cls.__qualname__}.config is {cls.config!r}: write DTOConfig(...)")

    # -- defined by the DTO of each kind of model

    @classmethod
    def detect_nested_field(cls, model: type) -> bool:
        """Whether ``model`` is a model of this kind."""
        raise NotImplementedError(f"{cls.__qualname__}.detect_nested_field: return whether a class is a model")

    @classmethod
    def generate_field_definitions(cls, model: Any) -> Iterable[DTOFieldDefinition]:
        """The fields of ``model``, which may have type arguments.

        ``telex.annotations.field_hints`` reads annotations.
        """
        raise NotImplementedError(f"{cls.__qualname__}.generate_field_definitions: yield the fields of a model")

    @classmethod
    def constructor(cls, model: Any) -> Callable[..., Any]:
        """The callable that creates an instance from its fields as keyword arguments; ``dict`` for dictionaries."""
        made: Callable[..., Any] = model_class(model)
        return made

    @classmethod
    def from_plain(cls, model: Any) -> Callable[[dict[str, Any]], Any]:
        """For ``plain`` kinds: a function that creates an instance from a decoded JSON object by field name."""
        raise NotImplementedError(
            f"{cls.__qualname__}.from_plain: return a function that creates a {name_of(model)} from a dictionary"
        )

    @classmethod
    def to_plain(cls, model: Any) -> Callable[[Any], dict[str, Any]]:
        """For ``plain`` kinds: a function that converts an instance to a dictionary of JSON values by field name."""
        raise NotImplementedError(
            f"{cls.__qualname__}.to_plain: return a function that converts a {name_of(model)} to a dictionary"
        )

    @classmethod
    def wire_options(cls, model: Any) -> Mapping[str, Any]:
        """Options of ``msgspec.defstruct`` for the wire type, in addition to its fields."""
        return {}

    @classmethod
    def explain(cls, exc: Exception) -> tuple[str, Sequence[str | int]]:
        """The client's error message when an instance could not be created, and the path of the invalid field."""
        return str(exc), ()

    @classmethod
    def current(cls, instance: Any, name: str) -> Any:
        """The current value of a field before an update; ``None`` if it has none."""
        return instance.get(name) if cls.by_items else getattr(instance, name, None)

    @classmethod
    def assign(cls, instance: Any, name: str, value: Any) -> None:
        """Set a field of an instance."""
        if cls.by_items:
            instance[name] = value
        else:
            setattr(instance, name, value)

    # -- called by Telex

    @classmethod
    def serves(cls, model: Any) -> bool:
        """Whether this DTO applies to ``model``."""
        return any(model == each or _is_subclass(model, each) for each in cls.models)

    @classmethod
    def fits(cls, annotation: Any) -> bool:
        """Whether the annotation is or contains a model that this DTO applies to."""
        inner = unalias(split_annotated(annotation)[0])
        return cls.serves(inner) or any(map(cls.fits, get_args(inner)))

    @classmethod
    def _check_model(cls, model: Any) -> None:
        kind = model_class(model)
        if not (isinstance(kind, type) and cls.detect_nested_field(kind)):
            inner = next(iter(get_args(model)), None)
            raise ImproperlyConfiguredException(
                f"{cls.__name__}[{name_of(model)}]: {name_of(model)} is not a model of the kind that {cls.__name__} is"
                f" for; {'use the DTO of its kind' if inner is None else f'give the model itself, {name_of(inner)}'}"
            )


def name_of(model: Any) -> str:
    """The name of a model in errors."""
    return getattr(model, "__name__", None) or repr(model)


def _is_subclass(model: Any, base: Any) -> bool:
    """Whether a class, or a generic class with arguments, is a subclass of ``base``, if ``base`` has no arguments."""
    kind = model_class(model)
    return isinstance(kind, type) and isinstance(base, type) and not _is_dict(base) and issubclass(kind, base)


def _is_dict(base: type) -> bool:
    return issubclass(base, dict)
