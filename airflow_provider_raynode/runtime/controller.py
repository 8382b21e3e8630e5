"""Tune's loop over the trials, which ends only as the search's config says, and leaves what is unfinished unfinished.

Tune on its own marks the trials that it cuts off as terminated: a search that goes on later would take them for whole.
And it waits without end for a search algorithm or scheduler that has nothing to propose any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import ray
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune import tune as ray_tune_tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchGenerator
from ray.util.placement_group import PlacementGroup

from airflow_provider_raynode.runtime.completion import SearchEnd

log = logging.getLogger(__name__)

_POLL_S = 0.2
# A trial that waits for resources, where only the search itself could hold them, may also wait for a process to start.
_FOR_RESOURCES = 10
# Seconds for which resources may be free that a trial waits for; then its request is taken for lost.
_LOST_S = 20.0


@contextmanager
def controlled(end: SearchEnd, *, kill: bool = False) -> Iterator[None]:
    """Let the searches that begin in the context be run by a `SearchController`.

    :param end: is told how the search ends.
    :param kill: whether a trial that ends is killed, with all that runs in its placement group: the workers of a
        training compute on until then.
    """
    own = ray_tune_tune.TuneController  # type: ignore[attr-defined]
    controller = partial(SearchController, end=end, kill=kill)
    setattr(ray_tune_tune, "TuneController", controller)  # noqa: B010  for mypy as well
    try:
        yield
    finally:
        setattr(ray_tune_tune, "TuneController", own)  # noqa: B010
        for trial, status in end.left.items():
            trial.set_status(status)


class SearchController(TuneController):
    """Tune's controller, with an end of its own: at a time budget, a first failure, a standstill."""

    def __init__(self, *, end: SearchEnd, kill: bool = False, **arguments: Any) -> None:
        self._end = end
        self._kill = kill
        self._idle_since: float | None = None
        self._proposing_s = 0.0
        self._waited = False
        self._fits_since: float | None = None
        super().__init__(**arguments)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is of this process."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        for name in ("_end", "_kill", "_idle_since", "_proposing_s", "_waited"):
            state.pop(name, None)
        return state

    def setup_experiments(self, experiments: Any, total_num_samples: int) -> None:
        """Learn how many trials there are to be: Ray counts grids and first points."""
        if self._end.asked is not None:
            self._end.asked = total_num_samples
        super().setup_experiments(experiments, total_num_samples)

    # -- the end -------------------------------------------------------------------------------------------------------

    def is_finished(self) -> bool:
        """Whether the search is over; Tune's loop asks before each step."""
        return self._end.decided or self._is_done()

    def _is_done(self) -> bool:
        return bool(super().is_finished())  # type: ignore[no-untyped-call]

    def _stop_experiment_if_needed(self) -> None:
        if self._is_done():
            return
        if self._stopper.stop_all():
            budget = self._end.search.time_budget_s
            self._end.decide("time_budget", f"the time budget (ray_tune.time_budget_s: {budget:g}) was over")
        self._watch_standstill()

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Write the state; at an early end with each trial's status as it is."""
        if force and self._end.decided:
            for trial in self._trials:
                self._mark_trial_to_checkpoint(trial)
        super().checkpoint(force=force, wait=wait)

    def cleanup(self) -> None:
        """End the trials' processes; what was cut off passes for terminated only until Tune has done its accounts."""
        self._end.left = {trial: trial.status for trial in self._trials if not trial.is_finished()}
        if self._end.left:
            for tracked in list(self._actor_to_trial):
                if self._actor_manager.is_actor_started(tracked):
                    self._actor_manager.remove_actor(tracked, kill=True)
        super().cleanup()  # type: ignore[no-untyped-call]
        for trial in self._end.left:
            trial.set_status(Trial.TERMINATED)

    def _remove_actor(self, tracked_actor: TrackedActor) -> None:
        """End a trial's process: by Tune's way, which waits for its next report, or at once."""
        if not self._kill:
            super()._remove_actor(tracked_actor)
        elif self._actor_manager.remove_actor(tracked_actor, kill=True):
            self._stopping_actors[tracked_actor] = now = time.monotonic()
            self._earliest_stopping_actor = min(self._earliest_stopping_actor, now)

    # -- standstill ----------------------------------------------------------------------------------------------------

    def _update_trial_queue(self, blocking: bool = False, timeout: int = 600) -> bool:
        """Ask for the next trial; where there is nothing else to do, wait a moment instead of Tune's ten minutes."""
        begin = time.monotonic()
        added = bool(super()._update_trial_queue(blocking=False))
        self._proposing_s += time.monotonic() - begin
        if blocking and not added:
            time.sleep(_POLL_S)
        return added

    def _watch_requests(self) -> None:
        """Ask anew for resources that are free and do not come: Ray loses a placement group now and then.

        Only where no trial runs: a request beside a running trial is served when that ends, or counts from then on.
        """
        now = time.monotonic()
        if self._running_trials or not self._pending_trials or not (staged := _staged(self)):
            self._fits_since = None
            return
        if self._fits_since is None:
            self._fits_since = now
        if now - self._fits_since < _LOST_S:
            return
        self._fits_since = None
        manager = self._actor_manager._resource_manager
        free = ray.available_resources()
        for request, group in staged:
            wanted = request.required_resources
            # Ray waits for it as for any other; or it has made the group, and has not told.
            waiting = ray.util.placement_group_table(group).get("state") == "PENDING"
            if not waiting or all(free.get(name, 0) >= amount for name, amount in wanted.items()):
                log.warning("The resources of a trial are free and do not come: they are asked for anew")
                manager.cancel_resource_request(request)
                manager.request_resources(request)

    def _watch_standstill(self) -> None:
        self._watch_requests()
        waits = bool(self._pending_trials)
        if self._running_trials or (waits and not self._end.alone) or waits != self._waited:
            self._idle_since, self._waited = None, waits
            return
        now = time.monotonic()
        if self._idle_since is None:
            self._idle_since, self._proposing_s = now, 0.0
            return
        limit = self._end.search.failure.stall_timeout_s * (_FOR_RESOURCES if waits else 1)
        if now - self._idle_since - self._proposing_s <= limit:
            return
        if waits:
            self._end.decide(
                "stalled", f"for {limit:g} s no trial ran, and those that wait get no resources: {_free()}"
            )
            return
        searcher = _innermost(self._search_alg)
        said = f"for {limit:g} s (ray_tune.failure.stall_timeout_s) no trial ran and none waited for resources"
        if not self._search_alg.is_finished():
            said += f", and {type(searcher).__name__} proposed none"
        if self._paused_trials:
            scheduler = type(self._scheduler_alg).__name__
            said += f"; {len(self._paused_trials)} trials are paused, and {scheduler} lets none of them go on"
        self._end.decide("stalled", said)

    # -- going on with an earlier search -------------------------------------------------------------------------------

    def add_trial(self, trial: Trial) -> None:
        """Add a trial; of one that has ended, the scheduler of a later attempt hears nothing: it would wait for it."""
        if not trial.is_finished():
            super().add_trial(trial)
            return
        scheduler, self._scheduler_alg = self._scheduler_alg, cast("TrialScheduler", _Deaf())
        try:
            super().add_trial(trial)
        finally:
            self._scheduler_alg = scheduler

    def _restore_trials(self, experiment_state: Any) -> Any:
        trials = super()._restore_trials(experiment_state)
        self._end.read_back = {trial.trial_id for trial in trials}
        return trials

    def resume(self, resume_config: Any) -> None:
        """Restore the state; a search algorithm that had proposed nothing any more is asked again."""
        super().resume(resume_config)
        if isinstance(self._search_alg, SearchGenerator):
            self._search_alg._finished = False


def _staged(controller: TuneController) -> list[tuple[Any, PlacementGroup]]:
    """Return the requests for resources that Ray has not served, with their placement groups."""
    staged = getattr(controller._actor_manager._resource_manager, "_request_to_staged_pgs", {})
    return [(request, group) for request, groups in staged.items() for group in groups]


class _Deaf:
    """In the scheduler's place while a trial is added that it is not to hear of."""

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Do nothing."""


def _free() -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    return ", ".join(
        f"{name} {free.get(name, 0):g} of {total[name]:g} free" for name in ("CPU", "GPU") if name in total
    )


def _innermost(algorithm: Any) -> Any:
    while hasattr(algorithm, "searcher"):
        algorithm = algorithm.searcher
    return algorithm
