"""The search space: nested mappings whose leaves are domains or constants, checked and normalised as plain JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from airflow_provider_raynode.config._section import (
    Loc,
    Problem,
    as_validation_error,
    did_you_mean,
    folded,
    problems_of,
)
from airflow_provider_raynode.config._values import shown
from airflow_provider_raynode.config._yaml import plain
from airflow_provider_raynode.config.domains import DOMAINS, AnyDomain, Domain, domain_name, is_domain

_ARGUMENTS = {name for cls in DOMAINS.values() for name in cls.model_fields} - {"type", "value"} | {"categories"}
# Words of other libraries for a domain of Ray.
_FOREIGN = {"float": "uniform", "int": "randint", "integer": "randint", "categorical": "choice", "normal": "randn"}
_FOREIGN |= {"grid": "grid_search", "log": "loguniform", "double": "uniform"}
# What Ray itself reads in any mapping: `{grid_search: […]}`, and `{eval: …}` as code.
_RAYS_OWN = ({"grid_search"}, {"eval"})
_IN_CODE = ("sample_from", "function", "lambda")
SPACE_NODE = "SearchSpaceNode"
"""Name of the recursive definition in the JSON schema, see `schema.py`."""

NO_SPACE = "is missing or empty: name at least one hyperparameter"
_LITERAL = "{type: constant, value: …}"


class SpaceReader:
    """One walk over a search space: `read` gives it normalised, `found` is what is wrong.

    :param lists_are_choices: a list is a set of values to choose from (PBT's mutations), not a constant.
    """

    def __init__(self, *, lists_are_choices: bool = False) -> None:
        self.found: list[Problem] = []
        self._lists_are_choices = lists_are_choices

    def read(self, value: Any) -> dict[str, Any]:
        """Return the search space as plain JSON with each domain's arguments under their own names."""
        space = plain(value, (), self.found)
        if not isinstance(space, dict):
            self.found.append(((), f"{shown(value)} is not a mapping (name: domain or constant)"))
            return {}
        if "run_config" in space:
            self.found.append((("run_config",), "is a name that Ray keeps to itself here: choose another"))
        if set(space) in _RAYS_OWN:
            self.found.append(((*space,), "cannot be the only name of the space: Ray would take it for a grid or code"))
        space = {name: self._node(each, (name,)) for name, each in space.items()}
        # What is no plain data is not told again as what it makes of its domain.
        first = dict(reversed(self.found))
        self.found = [(loc, first[loc]) for loc in dict.fromkeys(loc for loc, _ in self.found)]
        return space

    def _node(self, value: Any, loc: Loc, *, option: bool = False) -> Any:
        """Return a part of the space normalised.

        :param option: whether it stands in a choice, where a list and a mapping with bounds are values like others.
        """
        if isinstance(value, dict):
            if self._is_domain(value, loc, option=option):
                if option and domain_name(value["type"]) == "grid_search":
                    self.found.append((loc, "a grid cannot stand inside choices: use choice there as well"))
                return self._domain(value, loc)
            return {name: self._node(each, (*loc, name), option=option) for name, each in value.items()}
        if isinstance(value, list):
            self._literal(value, loc, "a list: give it a key of its own, or use choice")
        if self._lists_are_choices and not option:
            if not isinstance(value, list):
                self.found.append((loc, f"{shown(value)} is neither a list of values nor a domain nor a mapping"))
            elif not value:
                self.found.append((loc, "is an empty list: at least one value is needed"))
        return value

    def _is_domain(self, value: dict[str, Any], loc: Loc, *, option: bool = False) -> bool:
        """Whether a mapping is a domain, and not a nested part of the space; what only looks like one is an error."""
        word = value.get("type")
        if isinstance(word, str):
            return domain_name(word) is not None or self._looks_like_a_domain(word, value, loc)
        if set(value) == {"grid_search"}:
            self.found.append((loc, "write a grid as {type: grid_search, values: […]}"))
        elif set(value) == {"eval"}:
            self.found.append((loc, "code cannot be said here: Ray would evaluate the text as Python"))
        elif option:
            pass  # a mapping of bounds is a value as good as others
        elif {"low", "high"} <= set(value) <= _ARGUMENTS and not any(isinstance(each, dict) for each in value.values()):
            self.found.append(
                (loc, f"type is missing, e.g. type: uniform (or, for a mapping of constants, {_LITERAL})")
            )
        return False

    def _looks_like_a_domain(self, word: str, value: dict[str, Any], loc: Loc) -> bool:
        others = set(value) - {"type"}
        import difflib

        near = difflib.get_close_matches(folded(word), [folded(name) for name in DOMAINS], n=1, cutoff=0.75)
        foreign = _FOREIGN.get(folded(word))
        if word in _IN_CODE:
            self.found.append(((*loc, "type"), f"{word!r} needs code and cannot be said here; allowed: {_names()}"))
        elif near or (others and others <= _ARGUMENTS):
            hint = f", did you mean {foreign!r}?" if foreign else did_you_mean(word, DOMAINS)
            literal = f" (a mapping that is no domain: {_LITERAL})" if near else ""
            self.found.append(((*loc, "type"), f"{word!r} is no domain{hint} allowed: {_names()}{literal}"))
        return False

    def _domain(self, value: dict[str, Any], loc: Loc) -> dict[str, Any]:
        name = domain_name(value["type"])
        assert name is not None
        try:
            domain = DOMAINS[name].model_validate({**value, "type": name})
        except ValidationError as error:
            self.found += [((*loc, *below), message) for below, message in problems_of(error)]
            return value
        if name == "grid_search" and self._lists_are_choices:
            self.found.append((loc, "a grid cannot be a mutation: write the values as a list"))
        if name == "constant" and self._lists_are_choices:
            self.found.append((loc, "a constant cannot be a mutation: leave the key out"))
        if name == "constant" and isinstance(value["value"], dict) and set(value["value"]) in _RAYS_OWN:
            self.found.append(((*loc, "value"), "cannot be said here: Ray would take it for a grid or for code"))
        self._literal(getattr(domain, "values", None), (*loc, "values"), "values")
        result = domain.model_dump(mode="json", exclude_none=name != "constant")
        if name == "choice":
            if self._lists_are_choices:
                self._literal(result["choices"], (*loc, "choices"), "the choices of a mutation")
            else:
                options = enumerate(result["choices"])
                result["choices"] = [self._node(each, (*loc, "choices", index), option=True) for index, each in options]
        return result

    def _literal(self, value: Any, loc: Loc, place: str) -> None:
        """Refuse a domain where only literal values can stand."""
        if isinstance(value, list):
            for index, each in enumerate(value):
                self._literal(each, (*loc, index), place)
        elif isinstance(value, dict):
            word = value.get("type")
            name = domain_name(word) if isinstance(word, str) else None
            if name == "constant":
                if set(value) != {"type", "value"}:
                    self.found.append((loc, f"a constant is {_LITERAL}"))
            elif name is not None or set(value) in _RAYS_OWN:
                self.found.append((loc, f"a domain cannot stand inside {place} (a literal mapping: {_LITERAL})"))
            else:
                for key, each in value.items():
                    self._literal(each, (*loc, key), place)


def _names() -> str:
    return ", ".join(DOMAINS)


class SearchSpaceSchema:
    """Marks a field as a search space: validates with `SpaceReader`, gives the recursive JSON schema."""

    def __init__(self, *, lists_are_choices: bool = False) -> None:
        self._lists_are_choices = lists_are_choices

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        from pydantic_core import core_schema

        inner = handler(dict[str, Any])
        return core_schema.no_info_before_validator_function(self._validate, inner)

    def _validate(self, value: Any) -> dict[str, Any]:
        reader = SpaceReader(lists_are_choices=self._lists_are_choices)
        space = reader.read(value)
        if reader.found:
            raise as_validation_error("search_space", reader.found)
        return space

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        from pydantic import TypeAdapter

        domains = handler(TypeAdapter(AnyDomain).core_schema)
        node: dict[str, Any] = {
            "$comment": SPACE_NODE,
            "anyOf": [
                *domains["anyOf"],
                {
                    "type": "object",
                    "description": "a nested part of the space",
                    "properties": {"type": {"not": {"enum": list(DOMAINS)}}},
                    "additionalProperties": {"$comment": SPACE_NODE},
                },
                {"type": ["string", "number", "boolean", "null", "array"], "description": "a constant"},
            ],
        }
        return {"type": "object", "additionalProperties": node}


def domains_of(space: Mapping[str, Any], loc: Loc = ()) -> Iterator[tuple[Loc, Domain]]:
    """Yield the domains of a normalised search space with their paths, those inside choices too, constants left out."""
    for name, value in space.items():
        yield from _domains_in(value, (*loc, name))


def _domains_in(value: Any, loc: Loc) -> Iterator[tuple[Loc, Domain]]:
    if not isinstance(value, dict):
        return
    if not is_domain(value):
        yield from domains_of(value, loc)
    elif value["type"] != "constant":
        yield loc, DOMAINS[value["type"]].model_validate(value)
        for index, option in enumerate(value.get("choices", ())):
            yield from _domains_in(option, (*loc, "choices", index))


def with_mutations(space: Mapping[str, Any], scheduler: Any) -> dict[str, Any]:
    """Return the space with what only PBT's mutations or PB2's bounds name: Ray samples a first value for those too."""
    mutations = getattr(scheduler, "hyperparam_mutations", None) or getattr(scheduler, "hyperparam_bounds", None)
    base = getattr(scheduler, "base_scheduler", None)
    if base is not None:
        return with_mutations(space, base)
    return _filled(space, mutations or {}, bounds=hasattr(scheduler, "hyperparam_bounds"))


def _filled(space: Mapping[str, Any], mutations: Mapping[str, Any], *, bounds: bool) -> dict[str, Any]:
    result = dict(space)
    for name, value in mutations.items():
        if isinstance(value, dict) and not is_domain(value):
            below = result.get(name, {})
            if isinstance(below, dict) and not is_domain(below):
                result[name] = _filled(below, value, bounds=bounds)
        elif name not in result:
            if isinstance(value, list):
                value = (
                    {"type": "uniform", "low": value[0], "high": value[1]}
                    if bounds
                    else {"type": "choice", "choices": value}
                )
            result[name] = value
    return result
