"""The work of a search: from the function and the inputs to the best trial."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.runtime.work import Job, Work
from airflow_provider_raynode.spec import NodeFailure

if TYPE_CHECKING:
    from airflow_provider_raynode.config.tune import RayTune
    from airflow_provider_raynode.runtime.function import FunctionSource
    from airflow_provider_raynode.runtime.observer import Observer
    from airflow_provider_raynode.runtime.output import Output
    from airflow_provider_raynode.runtime.training.parquet import ParquetRows
    from airflow_provider_raynode.runtime.tuned_training import TunedSetup
    from airflow_provider_raynode.runtime.worker import TrialSetup


class SearchWork(Work):
    """Runs `ray_tune`."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._source: FunctionSource | None = None
        self._inputs: dict[str, Any] = {}
        # Those of the trainings that are the trials.
        self._datasets: dict[str, ParquetRows] = {}
        self._observer: Observer | None = None

    def prepare(self) -> None:
        """Read the function and the inputs, and check that every argument gets one value."""
        from airflow_provider_raynode.runtime.arguments import node_catalog, read_call
        from airflow_provider_raynode.runtime.inputs import load_inputs

        search = self.spec.config.ray_tune
        assert search is not None
        if not search.logger_callbacks:
            # Read by Tune when a search starts: without it, each trial gets CSV, JSON and TensorBoard writers.
            os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        self._source, op_kwargs = read_call(self.spec, search.sampled_space, replayed=search.is_replay)
        section, catalog = self.spec.config.ray_train, node_catalog(self.spec)
        if section is not None:
            from airflow_provider_raynode.runtime.training.datasets import check_shares, datasets_of

            self._datasets, op_kwargs = datasets_of(section, op_kwargs, catalog)
            check_shares(self._datasets, section.scaling.bounds[1])
        self._inputs = load_inputs(op_kwargs, catalog)

    def asked(self) -> dict[str, float]:
        """Return what a trial reserves."""
        return unit_of(self.spec.config).total

    def cut_short(self, failure: NodeFailure) -> dict[str, Any]:
        """Return what has become of the trials."""
        if self._observer is None:
            return {}
        end = self._observer.end
        end.decide("stopped", failure.message)
        return {"completion": end.completion(self._observer.statuses())}

    def _setup(self, search: RayTune) -> TrialSetup | TunedSetup:
        """Return what every trial shares: a call of the function, or the workers of a training."""
        spec, job = self.spec, self.job
        assert self._source is not None
        assert search.metric is not None
        shared: dict[str, Any] = {
            "function": self._source,
            "run": spec.context,
            "attempt": spec.attempt,
            "catalog_uri": spec.catalog_uri,
            "attempt_prefix": spec.attempt_prefix,
            "returns": spec.returns,
            "metric": search.metric,
            "further_metrics": tuple(search.further_metrics or ()),
            "submission_id": spec.submission_id,
            "secrets": job.secrets,
            "driver": job.lease.number,
        }
        if spec.config.ray_train is not None:
            from airflow_provider_raynode.runtime.tuned_training import TunedSetup

            return TunedSetup(
                **shared,
                config=spec.config,
                datasets=self._datasets,
                start_timeout_s=spec.limits.startup_timeout_s,
            )
        from airflow_provider_raynode.runtime.worker import TrialSetup

        return TrialSetup(**shared)

    def run(self, output: Output) -> dict[str, Any]:
        """Run the search and collect what it found."""
        from airflow_provider_raynode.runtime.collect import collect
        from airflow_provider_raynode.runtime.completion import SearchEnd
        from airflow_provider_raynode.runtime.observer import Observer, Scores
        from airflow_provider_raynode.runtime.placement import check
        from airflow_provider_raynode.runtime.progress import ProgressWriter
        from airflow_provider_raynode.runtime.search import run_search, total_trials
        from airflow_provider_raynode.runtime.steps import Steps
        from airflow_provider_raynode.runtime.telling import Teller

        spec, job = self.spec, self.job
        search = spec.config.ray_tune
        assert search is not None
        assert search.metric is not None
        assert search.mode is not None
        self.resources = check(unit_of(spec.config), embedded=job.embedded)
        scores = Scores(search.metric, search.mode, search.scope, search.further_metrics)
        outputs = job.attempt.child("outputs") if search.keep_outputs == "best" else None
        end = SearchEnd(search, total_trials(spec.config), alone=job.embedded)
        observer = Observer(scores, end=end, outputs=outputs, steps=Steps(spec, job.attempt))
        observer.started = self.started
        observer.tell_failure = Teller(job.attempt, output.workers)
        self._observer = observer
        writer = ProgressWriter(job.attempt, f"{spec.attempt_prefix}/progress.json")
        writer.start(observer.snapshot)
        phase = "failed"
        try:
            with job.phase("search"):
                grid = run_search(spec, self._setup(search), self._inputs, job.attempt, observer)
            writer.write(phase="collecting")
            # What is removed from now on nobody else may need.
            job.lease.confirm()
            with job.phase("collect"):
                observer.close()
                self.restored = observer.restored
                found = collect(spec, grid, observer, job.attempt)
            phase = "done"
        finally:
            writer.stop(phase=phase)
        return dict(vars(found))
