"""The expression in `depends`, and the graph that the tasks of a DAG template make with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_provider_raynode.config._section import did_you_mean
from airflow_provider_raynode.config._values import shown

RESULTS = ("Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed")
OF_LOOPS = frozenset({"AnySucceeded", "AllFailed"})
_TOKEN = re.compile(r"\s+|(?P<task>[a-zA-Z0-9][-a-zA-Z0-9]*)(?:\.(?P<result>[a-zA-Z]*))?|(?P<sign>&&|\|\||[!()])")
_WORDS = {"and": "&&", "or": "||", "not": "!"}


@dataclass
class Depends:
    """What a `depends` says.

    :param results: for each task the results it asks for; none where the task stands alone.
    """

    results: dict[str, set[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def depends(text: str) -> Depends:
    """Read a `depends` expression, with all that is wrong in its syntax."""
    found = Depends()
    at, depth, needs_task = 0, 0, True
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            found.problems.append(_strange(text, at))
            return found
        at = match.end()
        task, sign = match["task"], match["sign"]
        if task:
            if task in _WORDS and match["result"] is None:
                found.problems.append(f"{task!r} in {shown(text)}: write {_WORDS[task]}")
                return found
            if not needs_task:
                found.problems.append(f"{shown(text)}: && or || is missing before {task!r}")
            needs_task = False
            _add(found, task, match["result"])
        elif sign:
            depth += {"(": 1, ")": -1}.get(sign, 0)
            if (sign in "!(") != needs_task or depth < 0:
                found.problems.append(f"{shown(text)}: {sign!r} is not expected")
                return found
            needs_task = sign != ")"
    if depth:
        found.problems.append(f"{shown(text)}: '(' is not closed")
    elif needs_task:
        found.problems.append(f"{shown(text)} ends where a task is expected")
    return found


def _add(found: Depends, task: str, result: str | None) -> None:
    results = found.results.setdefault(task, set())
    if result in RESULTS:
        results.add(result)
    elif result is not None:
        near = did_you_mean(result, RESULTS)
        found.problems.append(f"{task}.{result} is no result of a task{near} allowed: {', '.join(RESULTS)}")


def _strange(text: str, at: int) -> str:
    sign = text[at]
    if sign in "&|":
        return f"{shown(text)}: a single {sign!r}: write {sign * 2}"
    if text.startswith("{{", at):
        return f"{shown(text)}: depends takes no template tags"
    return f"{shown(text)}: {sign!r} has no meaning: tasks are joined by &&, ||, ! and parentheses"


def cycle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Return the tasks of a cycle, the first again at the end, None where there is none.

    :param edges: for each task those that it waits for.
    """
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        path, onpath = [start], {start: 0}
        stack = [iter(edges[start])]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                last = path.pop()
                del onpath[last]
                done.add(last)
            elif step in onpath:
                return [*path[onpath[step] :], step]
            elif step in edges and step not in done:
                onpath[step] = len(path)
                path.append(step)
                stack.append(iter(edges[step]))
    return None


class Ancestors:
    """Which tasks are over before a task starts.

    :param edges: for each task those that it waits for; without a cycle.
    """

    def __init__(self, edges: Mapping[str, Iterable[str]]) -> None:
        # A bit for each task: a set for each task would be a million names for 1,000 tasks in a row.
        self._bit = {name: 1 << index for index, name in enumerate(edges)}
        self._of: dict[str, int] = {}
        for start in edges:
            stack = [start]
            while stack:
                name = stack[-1]
                open_ones = [each for each in edges[name] if each in edges and each not in self._of]
                if open_ones and name not in self._of:
                    stack += open_ones
                    continue
                stack.pop()
                bits = 0
                for each in edges[name]:
                    if each in edges:
                        bits |= self._bit[each] | self._of[each]
                self._of[name] = bits

    def includes(self, name: str, ancestor: str) -> bool:
        """Whether `ancestor` is over before `name` starts."""
        return bool(self._of.get(name, 0) & self._bit.get(ancestor, 0))
