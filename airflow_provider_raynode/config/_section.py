"""The base of every section: unknown keys, wrong values and broken rules, all of them, in the words of this package."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError

from airflow_provider_raynode.config._values import shown

Loc = tuple[str | int, ...]
Problem = tuple[Loc, str]
_OURS = "raynode_config"
_YAML_BOOLEAN = "YAML reads an unquoted yes, no, on or off as a boolean: put the text in quotes"


class Section(BaseModel):
    """A mapping of the config file with known keys.

    A subclass lists its fields, each with a description; `problems` adds the rules between them. Whatever is wrong is
    collected, so that one look at the message is enough.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, defer_build=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Other spellings of a key, with the key."""

    not_in_yaml: ClassVar[Mapping[str, str]] = {}
    """Ray's arguments that this file does not take, with what to do instead."""

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return `data` with defaults that depend on other values filled in; called before validation."""
        return data

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong between the fields: where, below this section, and what."""
        yield from ()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        result = handler(schema)
        section = handler.resolve_ref_schema(result)
        for other, name in cls.renamed.items():
            section["properties"][other] = section["properties"][name]
            if name in section.get("required", ()):
                section["required"].remove(name)
                section.setdefault("allOf", []).append({"oneOf": [{"required": [name]}, {"required": [other]}]})
        return result

    @model_validator(mode="wrap")
    @classmethod
    def _collect(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):
            if isinstance(data, cls):
                return handler(data)
            raise _error(cls, [((), f"{shown(data)} is not a mapping (key: value)")])
        found: list[Problem] = []
        known: dict[str, Any] = {}
        for key, value in data.items():
            name = cls.renamed.get(key, key)
            if name not in cls.model_fields:
                found.append(((str(key),), cls._unknown(str(key))))
            elif name in known:
                found.append(((str(key),), f"{key} and {name} are the same: keep {name}"))
            else:
                known[name] = value
        try:
            instance = handler(cls.prepared(known))
        except ValidationError as error:
            found += [(detail["loc"], describe(detail)) for detail in error.errors(include_url=False)]
        else:
            found += instance.problems()
            if not found:
                return instance
        raise _error(cls, found)

    @classmethod
    def _unknown(cls, key: str) -> str:
        if key in cls.not_in_yaml:
            return f"cannot be said here: {cls.not_in_yaml[key]}"
        return f"unknown key{did_you_mean(key, cls.model_fields)} allowed: {', '.join(cls.model_fields)}"


def as_validation_error(title: str, problems: Iterable[Problem]) -> ValidationError:
    """Return an error of pydantic that carries `problems`; inside another section they get its path in front."""
    details = [
        InitErrorDetails(type=PydanticCustomError(_OURS, "{message}", {"message": message}), loc=loc, input=None)
        for loc, message in problems
    ]
    return ValidationError.from_exception_data(title, details)


def _error(cls: type[Section], problems: Iterable[Problem]) -> ValidationError:
    return as_validation_error(cls.__name__, problems)


def problems_of(error: ValidationError) -> list[Problem]:
    """Return what is wrong, in our words, without repetitions."""
    found = [(detail["loc"], describe(detail)) for detail in error.errors(include_url=False)]
    return list(dict.fromkeys(found))


def path_of(loc: Loc) -> str:
    """Return a location as the file's reader sees it: `ray_tune.search_space.lr.choices[2]`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[^\s.\[\]]+", part) else repr(part)
            text += f".{name}" if text else name
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `, did you mean 'x'?` for the nearest of `known`, or `;` where none is near."""
    import difflib

    by_folded = {folded(name): name for name in known}
    near = difflib.get_close_matches(folded(word), by_folded, n=1, cutoff=0.6)
    return f", did you mean {by_folded[near[0]]!r}?" if near else ";"


def folded(name: str) -> str:
    """Return a name without case, `_`, `-` and spaces: the spelling does not matter."""
    return re.sub(r"[\s_-]", "", name).lower()


def one_of(value: Any, allowed: Iterable[str]) -> str:
    """Return the message for a word that is none of `allowed`."""
    names = list(allowed)
    near = did_you_mean(value, names) if isinstance(value, str) else ";"
    hint = f" ({_YAML_BOOLEAN})" if isinstance(value, bool) else ""
    return f"{shown(value)} is not allowed{hint}{near} allowed: {', '.join(names)}"


def describe(detail: ErrorDetails) -> str:
    """Return one error of pydantic in our words: the value, what is allowed."""
    kind, value, limits = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == _OURS:
        return str(limits["message"])
    if kind == "value_error":
        return str(limits["error"])
    if kind == "literal_error":
        return one_of(value, re.findall(r"'([^']*)'", str(limits["expected"])))
    hint = f" ({_YAML_BOOLEAN})" if isinstance(value, bool) else ""
    messages = {
        "missing": "is missing: it is required",
        "string_type": f"{shown(value)} is not text{hint or ': put it in quotes'}",
        "string_too_short": "is empty",
        "greater_than": f"{shown(value)} is not above {limits.get('gt')}",
        "greater_than_equal": f"{shown(value)} is below {limits.get('ge')}, the least allowed",
        "less_than": f"{shown(value)} is not below {limits.get('lt')}",
        "less_than_equal": f"{shown(value)} is above {limits.get('le')}, the most allowed",
        "dict_type": f"{shown(value)} is not a mapping (key: value)",
        "list_type": f"{shown(value)} is not a list ([a, b, …])",
        "tuple_type": f"{shown(value)} is not a list ([a, b, …])",
        "too_short": f"has {limits.get('actual_length')} entries, the least allowed is {limits.get('min_length')}",
        "too_long": f"has {limits.get('actual_length')} entries, the most allowed is {limits.get('max_length')}",
    }
    return messages.get(kind, f"{shown(value)} is not allowed: {detail['msg']}")
