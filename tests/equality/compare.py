"""The differences of two runs, in lines for a person; what may differ is named here and nowhere else."""

from __future__ import annotations

from typing import Any

from oracle import Outcome

_RAN = ("success", "failed")
# What Airflow pushes for its own UI at the end of a task, for which a pod has no use.
_LINKS = "_link_"


def differences(airflow: Outcome, argo: Outcome) -> list[str]:
    """Return what is not equal, empty where everything is."""
    found = []
    if airflow.state != argo.state:
        found.append(f"run: {airflow.state} in Airflow, {argo.state} on Argo")
    theirs, ours = _states(airflow), _states(argo)
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            found.append(f"{key}: {theirs.get(key)} in Airflow, {ours.get(key)} on Argo")
        elif ours.get(key) in _RAN and key in argo.tries and airflow.tries[key] != argo.tries[key]:
            found.append(f"{key}: try {airflow.tries[key]} in Airflow, {argo.tries[key]} on Argo")
    theirs_xcoms, our_xcoms = _xcoms(airflow), _xcoms(argo)
    for xcom in sorted(theirs_xcoms.keys() | our_xcoms.keys()):
        if theirs_xcoms.get(xcom) != our_xcoms.get(xcom):
            found.append(
                f"{xcom}: {str(theirs_xcoms.get(xcom))[:200]} in Airflow, {str(our_xcoms.get(xcom))[:200]} on Argo"
            )
    return found


def _states(outcome: Outcome) -> dict[Any, str]:
    """Return the states; a mapped task none of whose instances ran counts as one, expanded or not.

    Airflow expands a mapped task before its rule skips it, Argo after.
    """
    by_task: dict[str, dict[int, str]] = {}
    for (task_id, index), state in outcome.states.items():
        by_task.setdefault(task_id, {})[index] = state
    found = {}
    for task_id, states in by_task.items():
        if len(set(states.values())) == 1 and next(iter(states.values())) not in _RAN:
            states = {-1: next(iter(states.values()))}
        found |= {(task_id, index): state for index, state in states.items()}
    return found


def _xcoms(outcome: Outcome) -> dict[Any, Any]:
    found = {key: _plain(value) for key, value in outcome.xcoms.items() if not key[2].startswith(_LINKS)}
    # What a short circuit skips is a set in Airflow, in no order.
    skips = {key: {name: sorted(ids) for name, ids in found[key].items()} for key in found if key[2] == "skipmixin_key"}
    return found | skips


def _plain(value: Any) -> Any:
    """Return an XCom without what is another in every run: where an object of the catalog lies, and since when."""
    if isinstance(value, dict):
        return {key: "…" if key in ("uri", "created") else _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
