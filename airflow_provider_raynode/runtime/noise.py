"""What Ray and the searchers' libraries say that nobody can act on, by logger and message: the rest is shown."""

from __future__ import annotations

import logging
import re
import warnings

# Logger: how the messages begin that are not shown.
_BY_LOGGER: dict[str, tuple[str, ...]] = {
    "ray.train._internal.storage": ("Checkpoint successfully created at: ",),
    "ray.train.v2._internal.execution.storage": ("Checkpoint successfully created at: ",),
    # Each failed rank has a line of the node's own.
    "ray.train.v2._internal.util": ("Error in training function:",),
    "ray.train.v2._internal.execution.failure_handling.default": ("[FailurePolicy] ",),
    "ray.tune.trainable.trainable": ("Restored on ",),
    # Each failed trial has a line of the node's own.
    "ray.tune.execution.tune_controller": ("Trial task failed for trial ", "The maximum number of pending trials "),
    "ray.tune.tune": (
        "Trials did not complete: ",
        "You have passed a `SearchGenerator` instance as the ",
        "You have specified `max_concurrent_trials=",
        "Consider boosting PBT performance by enabling `reuse_actors`",
        "Tune detects GPUs, but no trials are using GPUs.",
    ),
    "ray.tune.impl.tuner_internal": ("The Tune experiment will restore using the original run's ",),
    # The whole state is written as often as the node needs it; how long it takes is nobody's choice.
    "ray.tune.execution.experiment_state": (
        "Experiment state snapshotting has been triggered multiple times",
        "Saving the experiment state (which holds a global view of trial statuses",
    ),
    "ray.tune.search.basic_variant": ("The number of pre-generated samples (",),
    "ray.tune.search.searcher": ("save not implemented for Searcher.",),
    "ray.tune.search.search_generator": ("There was a duplicate when saving ",),
    "ray.tune.execution.placement_groups": ("Calling PlacementGroupFactory objects is deprecated.",),
    "ray.tune.utils.util": ("Install gputil for GPU system monitoring.", "The `"),
    "ray._private.services": ("WARNING: The object store is using ",),
    "ray._private.worker": ("Tip: ", "The driver may not be able to keep up with the stdout/stderr"),
    "optuna.study.study": ("A new study created in memory with name: ",),
    "optuna.storages._in_memory": ("A new study created in memory with name: ",),
}
# Of lines that come from processes of Ray's own, or from a worker before its first trial.
_LINES = re.compile(
    r"Checkpoint successfully created at: Checkpoint\(filesystem="
    r"|Restored on \S+ from checkpoint: Checkpoint\("
    # Told of the trial that it ran.
    r"|A worker died or was killed while executing a task by an unexpected system error"
)
# Of Ray's C++ log, wherever it comes from; the last is a second copy of what stands before it.
_NATIVE = re.compile(
    r"\[\d{4}-\d\d-\d\d [\d:,.]+ [A-Z] \d+ \d+\] .*?"
    r"(?:Failed to establish connection to the (?:event\+)?metrics (?:exporter )?agent|[Mm]etrics exporter"
    r"|logging\.cc:\d+: |core_worker\.cc:\d+: Actor with class name: 'PreemptionWatcher')"
)
_RAYS_WARNINGS = (
    r"(ray|hyperopt|bayes_opt|nevergrad|ax|botorch|gpytorch|zoopt|hebo|ConfigSpace|hpbandster|optuna)(\.|$)"
)


class _Without(logging.Filter):
    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self._beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            return not record.getMessage().startswith(self._beginnings)
        except Exception:  # the handler reports what cannot be formatted
            return True


def quiet_ray() -> None:
    """Hold back what nobody can act on, in this process."""
    for name, beginnings in _BY_LOGGER.items():
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Without) for each in logger.filters):
            logger.addFilter(_Without(beginnings))
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=_RAYS_WARNINGS)


def quiet_train(level: str) -> None:
    """Hold back what nobody can act on, in a process of a training.

    :param level: least level of the lines of Ray Train's own logger.
    """
    quiet_ray()
    logging.getLogger("ray.train").setLevel(level)


def is_noise(line: str, *, of_trial: bool = False) -> bool:
    """Whether a line says nothing to anybody: of a trial only what Ray's C++ log writes in between is."""
    return _NATIVE.match(line) is not None or (not of_trial and _LINES.match(line) is not None)
