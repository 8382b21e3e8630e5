"""Callbacks with which LightGBM and XGBoost report to the node round by round. Imports neither before one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_raynode.exceptions import RayNodeError
from airflow_provider_raynode.runtime.session import context, report

# What each round found: the value of each metric by its name, `<data>-<metric>`.
Found = dict[str, float]


def lightgbm_callback(
    *, metrics: Mapping[str, str] | None = None, every: int = 1, checkpoint_every: int | None = None
) -> Callable[[Any], None]:
    """Return a callback for `lightgbm.train(callbacks=[…])` that reports what each round found.

    A checkpoint is the booster so far: `lightgbm.train(init_model=get_checkpoint())` goes on from it.

    :param metrics: the name to report of each of LightGBM's, `{"auc": "validation-auc"}`; left out: all, named
        `<data>-<metric>`.
    :param every: rounds between two reports.
    :param checkpoint_every: rounds between two checkpoints; left out: none.

    Example::

        lightgbm.train(
            {"objective": "binary", "metric": "auc", **context().lightgbm_params()},
            lightgbm.Dataset(x, y), valid_sets=[valid], valid_names=["validation"], init_model=get_checkpoint(),
            callbacks=[lightgbm_callback(metrics={"auc": "validation-auc"}, checkpoint_every=10)],
        )
    """
    send = _Sender(metrics, every, checkpoint_every)

    def after_iteration(env: Any) -> None:
        found = {f"{each[0]}-{each[1]}": float(each[2]) for each in env.evaluation_result_list or ()}
        send.round(env.iteration + 1, env.end_iteration, found, env.model)

    after_iteration.order = 25  # type: ignore[attr-defined]  # after LightGBM's own, before it stops early
    return after_iteration


def xgboost_callback(
    *, metrics: Mapping[str, str] | None = None, every: int = 1, checkpoint_every: int | None = None
) -> Any:
    """Return a callback for `xgboost.train(callbacks=[…])` that reports what each round found.

    A checkpoint is the booster so far: `xgboost.train(xgb_model=get_checkpoint())` goes on from it.

    :param metrics: the name to report of each of XGBoost's, `{"error": "validation-error"}`; left out: all, named
        `<data>-<metric>`.
    :param every: rounds between two reports.
    :param checkpoint_every: rounds between two checkpoints; left out: none.
    """
    import xgboost

    send = _Sender(metrics, every, checkpoint_every)

    class ReportCallback(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Mapping[str, Mapping[str, Any]]) -> bool:
            found = {f"{data}-{name}": _last(log) for data, logs in evals_log.items() for name, log in logs.items()}
            # `epoch` begins at 0 in a training that goes on as well.
            send.round(model.num_boosted_rounds(), None, found, model)
            return False

    return ReportCallback()


def _last(log: Any) -> float:
    value = log[-1]
    return float(value[0] if isinstance(value, tuple) else value)


def _is_first() -> bool:
    """Whether this worker's checkpoint is kept; a call outside a node is the only one."""
    try:
        return context().rank == 0
    except RayNodeError:
        return True


class _Sender:
    """Reports each round that is to be reported, in every rank; a checkpoint comes from rank 0."""

    def __init__(self, metrics: Mapping[str, str] | None, every: int, checkpoint_every: int | None) -> None:
        for name, value in (("every", every), ("checkpoint_every", checkpoint_every)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: a number of rounds, 1 or more")
        self._metrics, self._every, self._checkpoint_every = metrics, every, checkpoint_every

    def round(self, number: int, last: int | None, found: Found, model: Any) -> None:
        """Take the round of that number, counted from 1; `last` is that of the last one, where it is known."""
        keeps = self._checkpoint_every is not None and (number % self._checkpoint_every == 0 or number == last)
        if not keeps and number % self._every and number != last:
            return
        report(self._named(found) | {"round": number}, checkpoint=model if keeps and _is_first() else None)

    def _named(self, found: Found) -> Found:
        if self._metrics is None:
            return found
        missing = sorted(set(self._metrics.values()) - set(found))
        if missing:
            raise KeyError(f"no metric {missing[0]!r} in this round; there are: {', '.join(sorted(found)) or 'none'}")
        return {name: found[theirs] for name, theirs in self._metrics.items()}
