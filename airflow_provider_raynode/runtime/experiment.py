"""Tune's experiment on storage: where it lies, how often it is written, how a later attempt goes on from it."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.runtime.lease import may_write
from airflow_provider_raynode.runtime.observer import Observer
from airflow_provider_raynode.runtime.search_state import damaged, own_state
from airflow_provider_raynode.spec import NodeSpec

log = logging.getLogger(__name__)

# Seconds between two writes of the state, at least. Tune's own 10 s would lose that much of finished work in a crash;
# where each write is a request that somebody pays for, a compromise.
_LOCAL_PERIOD_S = 0.1
_REMOTE_PERIOD_S = 3.0
# A write of the state may cost 1 part in 20 of the search, as in Tune.
_SHARE = 19
# A search of so many trials waits at most a second longer for the next write.
_TRIALS_PER_S = 500


def storage_of(spec: NodeSpec, catalog: Catalog) -> tuple[str, FileSystem]:
    """Return the path of the folder of the node's experiments and the filesystem that it is a path of."""
    if catalog.is_local:
        return spec.experiment_prefix, PyFileSystem(FSSpecHandler(AtomicFiles()))
    path = catalog.filesystem._strip_protocol(spec.experiment_prefix)
    return path, PyFileSystem(FSSpecHandler(catalog.filesystem))


def write_state_often(*, local: bool, trials: Callable[[], int]) -> None:
    """Make Tune write the state of its searches soon after each change, within a twentieth of the time.

    Tune offers a fixed period, which a large search cannot bear, or one of at least 10 s. This keeps its rule and
    lowers its floor; and since on a busy machine one slow write says nothing of the next, the period has a ceiling as
    well, which grows with the number of trials as the state does.

    :param trials: gives the number of trials so far.
    """
    floor = _LOCAL_PERIOD_S if local else _REMOTE_PERIOD_S
    try:
        from ray.tune.execution.experiment_state import _ExperimentCheckpointManager as Manager
    except ImportError:
        os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")
        return

    def update(self: Any, time_taken: float) -> None:
        if self._auto_checkpoint_enabled:
            ceiling = max(1.0, trials() / _TRIALS_PER_S)
            self._checkpoint_period = max(floor, min(time_taken * _SHARE, ceiling))

    setattr(Manager, "_update_auto_checkpoint_time", update)  # noqa: B010  a method of Ray's, for mypy as well


def restored_tuner(
    spec: NodeSpec, trainable: Any, space: dict[str, Any], path: str, filesystem: FileSystem, observer: Observer
) -> tune.Tuner | None:
    """Return a Tuner that goes on with an earlier search, None where there is none to go on from.

    That is the search of an earlier attempt, or this attempt's own where its driver is run a second time (a RayJob).

    Finished trials are not run again, unfinished ones go on from their last checkpoint, failed ones do as
    `ray_tune.failure.on_resume` says.

    :raises SearchStateError: what lies there is another search's, or damaged.
    """
    folder = f"{path}/{spec.experiment_name}"
    state = own_state(spec, folder, filesystem)
    if state is None:
        if spec.search_of is not None:
            log.info("Attempt %d left no state of its search: it starts anew", spec.search_of)
        return None
    on_resume = _on_resume(spec.config)
    log.info("Going on with the search of attempt %d", spec.search_of or spec.attempt)
    observer.expected = state
    try:
        return tune.Tuner.restore(
            folder,
            trainable,
            resume_unfinished=True,
            resume_errored=on_resume == "resume",
            restart_errored=on_resume == "restart",
            param_space=space,
            storage_filesystem=filesystem,
        )
    except Exception as error:  # a damaged pickle raises anything
        if spec.on_change != "restart":
            raise damaged(folder, error) from error
        log.warning("%s", damaged(folder, error), exc_info=True)
        filesystem.delete_dir_contents(folder)
        observer.expected = None
        return None


def name_trials(spec: NodeSpec, searcher: Any = None) -> None:
    """Make the ids of the search's trials begin with its prefix.

    Tune's own differ by chance: those of random and grid search are five digits of a clock, which searches that start
    together on one machine share.

    :param searcher: the search algorithm of a new search; a restored one knows its prefix.
    """
    prefix = spec.trial_prefix
    named = classmethod(lambda cls: f"{prefix}{uuid.uuid4().hex[:8]}")
    setattr(Trial, "generate_id", named)  # noqa: B010  a method of Ray's, for mypy as well
    if isinstance(searcher, BasicVariantGenerator):
        searcher._uuid_prefix = prefix


def _on_resume(config: RayConfig) -> str:
    assert config.ray_tune is not None
    return config.ray_tune.failure.on_resume


class AtomicFiles(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The local filesystem, where a file is there as a whole or not at all.

    Tune overwrites its state in place: a driver killed meanwhile would leave half a file, and nothing to resume from.
    """

    protocol = "raynode-atomic"

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **kwargs: Any) -> Any:
        if mode != "wb":
            return super()._open(path, mode, block_size=block_size, **kwargs)
        return _AtomicFile(path)


class _AtomicFile:
    """A file under a temporary name beside its own, which it gets when it is closed."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        number, self._temporary = tempfile.mkstemp(prefix=".raynode-", dir=self.path.parent)
        self._file = os.fdopen(number, "wb")

    def close(self) -> None:
        """Give the file its name; a second call does nothing."""
        if not self._file.closed:
            self._file.close()
            may_write()
            Path(self._temporary).chmod(0o644)
            Path(self._temporary).replace(self.path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _AtomicFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
