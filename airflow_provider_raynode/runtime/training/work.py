"""The work of a training: from the function and the inputs to its last report and its best checkpoint."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.runtime.work import Job, Work
from airflow_provider_raynode.spec import NodeFailure, TrainingEnd, TrainingEnding

if TYPE_CHECKING:
    from airflow_provider_raynode.runtime.function import FunctionSource
    from airflow_provider_raynode.runtime.output import Output
    from airflow_provider_raynode.runtime.training.ledger import Snapshot
    from airflow_provider_raynode.runtime.training.parquet import ParquetRows
    from airflow_provider_raynode.runtime.training.state import Origin, Training, TrainingState

log = logging.getLogger("airflow_provider_raynode.driver")


@dataclass
class _Run:
    """What one run of the trainer needs, apart from the config."""

    training: Training
    state: TrainingState
    origin: Origin
    storage_path: str
    filesystem: Any

    def paths(self) -> dict[str, str]:
        """Return the path on storage of each driver's folder, by its URI."""
        training = self.training
        names = [f"driver_{number:04}" for number in range(1, training.number + 1)]
        below = f"{self.storage_path}/{training.spec.experiment_name}"
        return {f"{training.uri}/{name}": f"{below}/{name}" for name in names}


class TrainWork(Work):
    """Runs `ray_train`."""

    unit: ClassVar[str] = "worker"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._source: FunctionSource | None = None
        self._inputs: dict[str, Any] = {}
        self._datasets: dict[str, ParquetRows] = {}
        self._origin: Origin | None = None
        self._seen: Snapshot | None = None
        self._output: Output | None = None

    def prepare(self) -> None:
        """Read the function and the inputs, and check that every argument gets one value."""
        from airflow_provider_raynode.runtime.arguments import node_catalog, read_call
        from airflow_provider_raynode.runtime.inputs import load_inputs
        from airflow_provider_raynode.runtime.training.datasets import check_shares, datasets_of

        section, catalog = self.spec.config.ray_train, node_catalog(self.spec)
        assert section is not None
        self._source, op_kwargs = read_call(self.spec, {})
        self._datasets, op_kwargs = datasets_of(section, op_kwargs, catalog)
        check_shares(self._datasets, section.scaling.bounds[1])
        self._inputs = load_inputs(op_kwargs, catalog)

    def asked(self) -> dict[str, float]:
        """Return what its workers reserve."""
        return unit_of(self.spec.config).total

    def cut_short(self, failure: NodeFailure) -> dict[str, Any]:
        """Return how far the training is."""
        from airflow_provider_raynode.runtime.training.result import reported

        if self._seen is None:
            return {"training": self._end("stopped", failure.message)}
        return dict(vars(reported(self._seen, self._end("stopped", failure.message))))

    def run(self, output: Output) -> dict[str, Any]:
        """Run the training and collect what it found."""
        import ray

        from airflow_provider_raynode.runtime.experiment import storage_of
        from airflow_provider_raynode.runtime.placement import check
        from airflow_provider_raynode.runtime.progress import ProgressWriter
        from airflow_provider_raynode.runtime.training.state import Training, origin_of

        spec, job = self.spec, self.job
        self._output = output
        self.resources = {
            name: float(amount) for name, amount in ray.cluster_resources().items() if "node:" not in name
        }
        training = Training(spec, job.attempt, job.lease.number)
        state = training.begin()
        if state.finished is not None:
            log.info("raynode: the training has ended before: its result is collected, and nothing is trained again")
            return self._fields(state.finished)
        storage_path, filesystem = storage_of(spec, job.attempt)
        run = _Run(training, state, self._none(), storage_path, filesystem)
        kept = training.kept()
        run.origin = self._origin = origin_of(kept, run.paths())
        training.remove_leftovers(kept)
        if run.origin.step is not None:
            log.info("raynode: going on from report %d", run.origin.step)
        writer = ProgressWriter(job.attempt, f"{spec.attempt_prefix}/progress.json")
        writer.start(self._progress)
        phase = "failed"
        try:
            ended_before = bool(kept) and kept[-1].state.finished
            if not ended_before:
                check(unit_of(spec.config), embedded=job.embedded)
                self._train(run)
            writer.write(phase="collecting")
            # What is removed from now on nobody else may need.
            job.lease.confirm()
            with job.phase("collect"):
                fields = self._collect(run)
            phase = "done"
        finally:
            writer.stop(phase=phase)
        return fields

    @staticmethod
    def _none() -> Origin:
        from airflow_provider_raynode.runtime.training.state import Origin

        return Origin()

    def _train(self, run: _Run) -> None:
        import ray
        from ray.exceptions import RayActorError
        from ray.train.v2.api.exceptions import TrainingFailedError

        from airflow_provider_raynode.runtime.noise import quiet_ray
        from airflow_provider_raynode.runtime.training.ledger import Ledger
        from airflow_provider_raynode.runtime.training.rendezvous import Rendezvous
        from airflow_provider_raynode.runtime.training.result import TrainingError, failure_of, reported
        from airflow_provider_raynode.runtime.training.stop import Stop
        from airflow_provider_raynode.runtime.training.trainer import build_trainer, set_rays_environment, watched
        from airflow_provider_raynode.runtime.training.worker import train

        spec, training = self.spec, run.training
        quiet_ray()
        set_rays_environment()
        setup = self._setup()
        inputs = ray.put(self._inputs) if self._inputs else None
        ledger = Ledger(spec.catalog_uri, training.driver_uri, run.origin, spec.config.metric, spec.config.mode)
        section = spec.config.ray_train
        assert section is not None
        rendezvous = Rendezvous(
            stop=Stop.of(section),
            report_timeout_s=section.report_timeout_s,
            start_timeout_s=spec.limits.startup_timeout_s,
        )
        trainer = build_trainer(
            spec.config,
            lambda: train(setup, inputs),
            name=f"{spec.experiment_name}/{training.driver_name}",
            storage_path=run.storage_path,
            storage_filesystem=run.filesystem,
            callbacks=[rendezvous, ledger],
            datasets=self._datasets,
            base=lambda trainer: watched(trainer, self._watch),
        )
        try:
            with self.job.phase("train"):
                trainer.fit()
        except (TrainingFailedError, RayActorError) as error:
            seen = self._seen or ledger.snapshot()
            failure = failure_of(error, seen, self.job.attempt)
            found = reported(seen, self._end("incomplete", failure.message))
            found.steps = self._table(run)
            raise TrainingError(failure, found) from error

    def _setup(self) -> Any:
        from airflow_provider_raynode.runtime.references import training_references
        from airflow_provider_raynode.runtime.training.worker import TrainSetup

        spec, job = self.spec, self.job
        assert self._source is not None
        return TrainSetup(
            function=self._source,
            run=spec.context,
            attempt=spec.attempt,
            catalog_uri=spec.catalog_uri,
            attempt_prefix=spec.attempt_prefix,
            returns=spec.returns,
            submission_id=spec.submission_id,
            secrets=job.secrets,
            driver=job.lease.number,
            metric=spec.config.metric,
            references=training_references(spec.config),
        )

    def _watch(self, seen: Snapshot) -> None:
        """Take what the controller says."""
        before, self._seen = self._seen, seen
        if seen.starts:
            self.started.set()
        known = {each.number for each in before.failures} if before is not None else set()
        for number in sorted({each.number for each in seen.failures} - known):
            self._tell(number, seen)

    def _tell(self, number: int, seen: Snapshot) -> None:
        """Say which rank failed, after its own last lines."""
        from airflow_provider_raynode.runtime.training.result import first_failure
        from airflow_provider_raynode.runtime.training.worker import failure_uri, tag_of

        failed = [each for each in seen.failures if each.number == number]
        failure = first_failure(failed, seen, self.job.attempt)
        assert self._output is not None
        rank = next((each for each in failed if each.rank == failure.rank), failed[0])
        uri = failure_uri(self.job.attempt, rank.rank, rank.worker)
        with suppress(Exception):
            if not self.job.attempt.exists(uri):
                self.job.attempt.write_bytes(uri, failure.to_bytes())
        text = " ".join(f"{failure.type}: {failure.message}".split())
        if seen.restarts >= number:
            step = seen.checkpoint_step
            text = f"{text:.400}. All ranks go on from " + (
                f"report {step}" if step else "the beginning: no checkpoint"
            )
        tag = tag_of(rank.rank)
        self._output.workers.after(tag, f"[{tag}] {text:.500} (traceback: {uri})")

    # -- what it has come to ---------------------------------------------------------------------------------------

    def _end(self, ending: TrainingEnding, reason: str) -> TrainingEnd:
        seen, origin = self._seen, self._origin
        return TrainingEnd(
            world_size=(seen.world_size or None) if seen is not None else None,
            reports=seen.last.step if seen is not None else 0,
            ending=ending,
            reason=reason,
            restarts=seen.restarts if seen is not None else 0,
            resumed_from=origin.step if origin is not None else None,
        )

    def _progress(self) -> dict[str, Any]:
        from airflow_provider_raynode.runtime.outputs import sanitised

        config, seen = self.spec.config, self._seen
        fields: dict[str, Any] = {"work": "training", "phase": "running", "metric": config.metric, "mode": config.mode}
        if seen is None:
            return {**fields, "phase": "starting", "training": {"steps": self._total()}}
        best = seen.best
        return {
            **fields,
            "phase": "running" if seen.starts else "starting",
            "training": {
                "step": seen.last.step,
                "steps": self._total(),
                "metrics": sanitised(seen.last.metrics),
                "best_step": best.step if best else None,
                "best_metrics": sanitised(best.metrics) if best else None,
                "workers": seen.world_size,
                "restarts": seen.restarts,
            },
            "eta_s": self._eta(seen),
        }

    def _total(self) -> int | None:
        """Return the number of reports after which the stop rule ends the training, where it says so."""
        section = self.spec.config.ray_train
        assert section is not None
        bound = (section.stop or {}).get("training_iteration")
        return None if bound is None else int(bound)

    def _eta(self, seen: Snapshot) -> float | None:
        total = self._total()
        first = self._origin.last if self._origin is not None else None
        if total is None or first is None or seen.last.step <= first.step:
            return None
        each = (seen.last.time_total_s - first.time_total_s) / (seen.last.step - first.step)
        return round(each * max(total - seen.last.step, 0), 1)

    def _collect(self, run: _Run) -> dict[str, Any]:
        from airflow_provider_raynode.runtime.training.ledger import Snapshot
        from airflow_provider_raynode.runtime.training.result import (
            TrainingError,
            keep_checkpoint,
            missing_outputs,
            reported,
        )

        spec, attempt = self.spec, self.job.attempt
        kept = run.training.kept()
        ended = kept[-1].state
        self._seen = self._seen or Snapshot(
            last=ended.last, best=ended.best, world_size=ended.world_size, restarts=ended.restarts
        )
        reason = ended.reason or "the function returned on every rank"
        found = reported(self._seen, self._end("finished" if ended.ending == "incomplete" else ended.ending, reason))
        found.outputs = dict(ended.last.outputs)
        found.steps = self._table(run)
        checkpoint, report = keep_checkpoint(kept, spec, attempt, run.filesystem, run.paths())
        if checkpoint is not None and report is not None:
            found.outputs["checkpoint"] = checkpoint
            if found.best_step is not None and report.step != found.best_step:
                found.warnings += (
                    f"the best report, {found.best_step}, came without a checkpoint that was kept: the output "
                    f"'checkpoint' is that of report {report.step}",
                )
        if (failure := missing_outputs(spec, found)) is not None:
            raise TrainingError(failure, found)
        fields = dict(vars(found))
        run.training.finish(run.state, _plain(fields))
        run.training.remove_drivers()
        return fields

    def _table(self, run: _Run) -> dict[str, Any] | None:
        from airflow_provider_raynode.runtime.training.steps import read_steps, write_steps

        attempt = self.job.attempt
        steps = write_steps(attempt, read_steps(attempt, list(run.paths())))
        return dict(steps) if steps is not None else None

    def _fields(self, finished: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a training that had ended before."""
        return {**finished, "training": TrainingEnd.model_validate(finished["training"])}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value.model_dump() if isinstance(value, TrainingEnd) else value for name, value in fields.items()}
