"""Picking the class of a scheduler or a search algorithm by what stands behind `type:`."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Union, get_args

from pydantic import GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from airflow_provider_raynode.config._later import dumped
from airflow_provider_raynode.config._section import Problem, Section, as_validation_error, folded, one_of
from airflow_provider_raynode.config._values import shown


class Kind(Section):
    """A section whose `type` names a class of Ray; the other keys are that class's arguments under Ray's names."""

    short_names: ClassVar[tuple[str, ...]] = ()
    """What else `type` may say: Ray's own short names, other names of the class; case, `_` and `-` do not matter."""

    ray_class: ClassVar[str] = ""
    """Module and name of Ray's class, or of another library's, as `module:Name`."""

    libraries: ClassVar[Mapping[str, str]] = {}
    """What must be importable beside Ray, with the requirement for pip."""

    type: str

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return all spellings of the type, Ray's class name first."""
        return (cls.class_name(), *cls.short_names)

    @classmethod
    def class_name(cls) -> str:
        """Return the name of Ray's class."""
        return str(get_args(cls.model_fields["type"].annotation)[0])

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = super().__get_pydantic_json_schema__(schema, handler)
        properties = handler.resolve_ref_schema(result)["properties"]
        properties["type"] = {"enum": list(cls.names()), "description": "Ray's class, or one of its short names"}
        return result

    def arguments(self) -> dict[str, Any]:
        """Return what goes to Ray's constructor, apart from metric, mode and the arguments that need Ray's objects."""
        left_out = {"type", "metric", "mode"}
        return {name: getattr(self, name) for name in type(self).model_fields if name not in left_out}


class ByType:
    """Annotation of a field that holds one of several kinds: takes a name or a mapping with `type`.

    It stands for the union of the kinds without building it: only the class that a file names is ever built, since a
    config is read whenever Airflow parses a DAG file.

    :param kinds: the classes.
    :param what: what a kind is, for the messages.
    :param later: modules and names of tuples of further classes, as `module:NAME`, imported when a file needs them.
    """

    def __init__(self, kinds: tuple[type[Kind], ...], what: str, *, later: str | tuple[str, ...] = ()) -> None:
        self._first = kinds
        self._what = what
        self._later = (later,) if isinstance(later, str) else later

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._pick,
            serialization=core_schema.plain_serializer_function_ser_schema(dumped, info_arg=True),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        kinds = self._kinds()
        every = tuple(name for kind in kinds for name in kind.names())
        union: Any = Union[(*kinds, Literal[every])]
        return handler(TypeAdapter(union).core_schema)

    def _kinds(self) -> tuple[type[Kind], ...]:
        return tuple(kind for kinds in self._by_module() for kind in kinds)

    def _by_module(self) -> Iterator[tuple[type[Kind], ...]]:
        """Yield the classes, importing no module before it is asked for."""
        yield self._first
        for where in self._later:
            module, _, name = where.partition(":")
            yield getattr(importlib.import_module(module), name)

    def _pick(self, value: Any) -> Kind:
        if isinstance(value, Kind) and isinstance(value, self._kinds()):
            return value
        if isinstance(value, str):
            value = {"type": value}
        if not isinstance(value, Mapping):
            raise _error(
                self._what, ((), f"{shown(value)} is neither the name of a {self._what} nor a mapping with type")
            )
        word = value.get("type")
        if word is None:
            spellings = [kind.class_name() for kind in self._kinds()]
            raise _error(self._what, (("type",), f"is missing: which {self._what}; allowed: {', '.join(spellings)}"))
        kind = next(filter(None, (_named(word, kinds) for kinds in self._by_module())), None)
        if kind is None:
            spellings = [kind.class_name() for kind in self._kinds()]
            every = [name for kind in self._kinds() for name in kind.names()]
            raise _error(self._what, (("type",), _unknown(word, every, spellings)))
        return kind.model_validate({**value, "type": kind.class_name()})


def _named(word: Any, kinds: tuple[type[Kind], ...]) -> type[Kind] | None:
    if not isinstance(word, str):
        return None
    return next((kind for kind in kinds if folded(word) in map(folded, kind.names())), None)


def _unknown(word: Any, every: list[str], spellings: list[str]) -> str:
    """Return the message for a word that is no type: the nearest of all spellings, but only class names as the list."""
    head = one_of(word, every).partition(" allowed: ")[0]
    return f"{head} allowed: {', '.join(spellings)}"


def _error(what: str, problem: Problem) -> ValidationError:
    return as_validation_error(what, [problem])
