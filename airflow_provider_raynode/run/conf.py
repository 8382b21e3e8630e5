"""`--conf` of `raynode run`: read, and held against the Params of the DAG before anything runs."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_raynode.exceptions import DagFileError

if TYPE_CHECKING:
    from airflow.sdk import DAG

_LONGEST = 120


def parse_conf(text: str | None) -> dict[str, Any] | None:
    """Return `--conf` as a dict.

    :raises DagFileError: it is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text, parse_constant=_no_json, object_pairs_hook=_unique)
    except ValueError as error:
        raise DagFileError(f"--conf is not JSON ({error}): {_remedy(text)}") from error
    if not isinstance(value, dict):
        raise DagFileError(f"--conf must be a JSON object, got {type(value).__name__}")
    return value


def check_conf(dag: DAG, conf: dict[str, Any] | None) -> list[str]:
    """Hold a run's conf against the Params of a DAG and its tasks, and return warnings.

    :raises DagFileError: a value breaks its Param, or a Param has none; one line for each.
    """
    from airflow.sdk.configuration import conf as configuration
    from airflow.sdk.definitions._internal.types import is_arg_set
    from airflow.sdk.exceptions import ParamValidationError

    given = dict(conf or {}) if configuration.getboolean("core", "dag_run_conf_overrides_params") else {}
    problems: dict[str, None] = {}
    known: set[str] = set()
    for owner, name, param in _params(dag):
        known.add(name)
        default = param.value
        value = given.get(name, default)
        try:
            param.resolve(**({"value": value} if name in given else {}))
        except ParamValidationError as error:
            allowed = _short(json.dumps(param.schema, default=str))
            if name not in given and not is_arg_set(default):
                problems[
                    f"--conf: the param {name!r} of {owner} has no default: give it a value, "
                    f"'{{\"{name}\": …}}'; allowed: {allowed}"
                ] = None
            else:
                reason = str(error).splitlines()[0]
                shown = _short(json.dumps(value, default=str))
                source = "--conf" if name in given else "params"
                what = f"{source}: {name!r} is {shown}, which breaks the param of {owner}"
                problems[f"{what}: {_short(reason)}; allowed: {allowed}"] = None
        finally:
            # A Param keeps what it was checked with.
            param.value = default
    if problems:
        raise DagFileError("\n".join(problems))
    return [_unknown(key, dag, known) for key in conf or {} if known and key not in known]


def _params(dag: DAG) -> Iterator[tuple[str, str, Any]]:
    """Yield each Param as Airflow will check it: a task's own ones win over those of its DAG."""
    seen: set[tuple[str, str]] = set()
    owners = [(f"DAG {dag.dag_id}", dag.params), *((f"task {each.task_id}", each.params) for each in dag.tasks)]
    for owner, params in owners:
        for name, param in _of(params):
            # A task has copies of its DAG's.
            key = (name, json.dumps(param.schema, default=str))
            if key in seen:
                continue
            seen.add(key)
            yield owner, name, param


def _of(params: Any) -> Iterator[tuple[str, Any]]:
    from airflow.sdk import Param

    for name in params:
        # A mapped task may have a plain dict.
        param = params.get_param(name) if hasattr(params, "get_param") else params[name]
        if isinstance(param, Param):
            yield name, param


def _unknown(key: str, dag: DAG, known: set[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"--conf: {key!r} is no param of {dag.dag_id}. {hint}It has {', '.join(sorted(known))}; tasks that look for "
        "it in params or dag_run.conf see it all the same"
    )


def _remedy(text: str) -> str:
    name = text.removeprefix("@")
    if not text.lstrip().startswith(("{", "[", '"')) and (text.startswith("@") or name.endswith((".json", ".yaml"))):
        found = "" if Path(name).is_file() else f", and there is no file {name!r}"
        return f'it is the JSON itself, not the name of a file{found}: write it as --conf "$(cat {name})"'
    return 'write it as \'{"key": "value"}\''


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON value")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found
