"""Checks every template tag and expression field in a part of a document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from airflow_provider_raynode.argo.lint.expression import Reference, expression
from airflow_provider_raynode.argo.lint.finding import Findings, Path
from airflow_provider_raynode.argo.lint.tags import tags, unclosed, without_tags
from airflow_provider_raynode.argo.lint.variables import Variables, function_problem
from airflow_provider_raynode.config._values import shown

_HTTP = frozenset({"request", "response"})
_DATA = frozenset({"data"})


def texts(data: Any, path: Path, skip: frozenset[Path] = frozenset()) -> Iterator[tuple[Path, str]]:
    """Yield all texts in `data`, with their places; the places in `skip` are left out."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, dict):
        for key, value in data.items():
            if (place := (*path, key)) not in skip:
                yield from texts(value, place, skip)
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from texts(value, (*path, index), skip)


def check_references(
    data: Any, path: Path, known: Variables, findings: Findings, skip: frozenset[Path] = frozenset()
) -> None:
    """Add what in the tags and expressions of `data` is malformed or cannot be resolved."""
    for place, text in texts(data, path, skip):
        is_bare = _is_expression(place)
        if not is_bare and "{{" not in text:
            continue
        at_place = _known_at(place, known)
        if "{{" in text:
            check_tags(text, place, at_place, findings)
        if is_bare and text:
            check_expression(without_tags(text), place, at_place, findings)


def check_tags(text: str, path: Path, known: Variables, findings: Findings) -> None:
    """Add what is wrong with the template tags of a text."""
    if (start := unclosed(text)) is not None:
        findings.error(path, f"{shown(start)}: '{{{{' has no '}}}}': Argo would look for it in what follows")
    for tag in tags(text):
        if tag.is_expression:
            check_expression(tag.text, path, known, findings)
            continue
        parts = tuple(tag.text.split("."))
        if not known.knows(parts[0]):
            findings.warning(path, f"{shown('{{' + tag.text + '}}')} is no variable of Argo: the text stays as it is")
        elif problem := known.problem(parts):
            findings.error(path, f"{{{{{tag.text}}}}}: {problem}")


def check_expression(text: str, path: Path, known: Variables, findings: Findings) -> None:
    """Add what is wrong with one expression, written without its braces."""
    read = expression(text)
    if read.problem:
        findings.error(path, f"the expression {shown(text)}: {read.problem}")
    for reference in read.references:
        if problem := _reference_problem(reference, known):
            findings.error(path, f"{'.'.join(reference.parts)} in the expression {shown(text)}: {problem}")


def _reference_problem(reference: Reference, known: Variables) -> str | None:
    root = reference.parts[0]
    if reference.called and not known.knows(root):
        return function_problem(root)
    if reference.in_closure and not known.knows(root):
        return None
    return known.problem(reference.parts, partly=True)


def _is_expression(path: Path) -> bool:
    """Whether a field holds an expression without braces."""
    if path[-1] == "expression":
        return True
    return path[-1] == "fromExpression" or path[-2:] == ("http", "successCondition")


def _known_at(path: Path, known: Variables) -> Variables:
    if "metrics" in path:
        return replace(known, in_metrics=True)
    if path[-2:] == ("http", "successCondition"):
        return replace(known, more_roots=_HTTP)
    if "transformation" in path:
        return replace(known, more_roots=_DATA)
    if "retryStrategy" in path:
        return replace(known, has_retries=True)
    return known
