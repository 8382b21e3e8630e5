"""The work of a plain function: one call, on one worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import BindingError, CatalogError, NodeFailedError, SpecError
from airflow_provider_raynode.runtime.work import Job, Work
from airflow_provider_raynode.spec import NodeFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_raynode.runtime.function import FunctionSource
    from airflow_provider_raynode.runtime.function_call import Outcome
    from airflow_provider_raynode.runtime.output import Output

_LOOK_S = 1.0


@dataclass
class Called:
    """What the call left."""

    value: Any = None
    metrics: dict[str, Any] | None = None
    outputs: dict[str, dict[str, Any]] | None = None
    steps: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


class FunctionFailedError(NodeFailedError):
    """The function has no result; `failure` says why."""

    def __init__(self, failure: NodeFailure, found: Called) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.found = found


class FunctionWork(Work):
    """Runs the function as it is.

    It is called once: where its worker is lost, the job has failed, and Airflow's retry calls it anew. Ray's own retry,
    which nobody would see, would call a function with effects of its own a second time.
    """

    unit = "function"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._source: FunctionSource | None = None
        self._args: list[Any] = []
        self._inputs: dict[str, Any] = {}
        self._reports: dict[str, Any] = {}

    def prepare(self) -> None:
        """Read the function and the inputs, and check that every argument gets one value."""
        from airflow_provider_raynode.runtime.function import read_function
        from airflow_provider_raynode.runtime.inputs import load_inputs

        node = Catalog(self.spec.catalog_uri).at(self.spec.node_prefix)
        self._source = read_function(self.spec.function, node)
        function = self._source.load()
        op_kwargs = self._named(function)
        self._args = load_inputs({"args": list(self.spec.op_args)}, node)["args"]
        self._inputs = load_inputs(op_kwargs, node)

    def _named(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return op_kwargs, with the values of the parameters file; all of them, and those by position, fit."""
        import inspect

        from airflow_provider_raynode.runtime.binding import check_binding, with_parameters

        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # of some functions in C there is none: the call shows
            return dict(self.spec.op_kwargs)
        if not self.spec.op_args:
            op_kwargs = with_parameters(function, (), self.spec.op_kwargs, self.spec.context.parameters)
            check_binding(function, (), op_kwargs, searched=False)
            return op_kwargs
        try:
            placed = set(signature.bind_partial(*self.spec.op_args).arguments)
            parameters = {name: each for name, each in self.spec.context.parameters.items() if name not in placed}
            op_kwargs = with_parameters(function, (), self.spec.op_kwargs, parameters)
            signature.bind(*self.spec.op_args, **op_kwargs)
        except TypeError as error:
            raise BindingError(f"{self.spec.function.name}{signature} does not fit the node: {error}") from error
        return op_kwargs

    def asked(self) -> dict[str, float]:
        """Return what the function's worker reserves."""
        return self.spec.config.call_resources.bundle()

    def run(self, output: Output) -> dict[str, Any]:
        """Call the function and collect what it returned."""
        from airflow_provider_raynode.runtime.placement import check
        from airflow_provider_raynode.runtime.progress import ProgressWriter

        spec, job = self.spec, self.job
        self.resources = check(unit_of(spec.config), embedded=job.embedded)
        writer = ProgressWriter(job.attempt, f"{spec.attempt_prefix}/progress.json")
        writer.start(self._snapshot)
        phase = "failed"
        try:
            with job.phase("function"):
                outcome, failure = self._call()
            with job.phase("collect"):
                found = self._collect(outcome)
            if failure is not None:
                found.value, found.outputs = None, {}
                raise FunctionFailedError(failure, found)
            phase = "done"
        finally:
            writer.stop(phase=phase)
        return {name: value for name, value in vars(found).items() if value is not None or name == "value"}

    def _call(self) -> tuple[Outcome, NodeFailure | None]:
        import ray

        from airflow_provider_raynode.runtime.function_call import Outcome
        from airflow_provider_raynode.runtime.function_worker import FunctionSetup, FunctionWorker
        from airflow_provider_raynode.runtime.reserved import actor_options

        spec = self.spec
        assert self._source is not None
        setup = FunctionSetup(
            function=self._source,
            run=spec.context,
            attempt=spec.attempt,
            catalog_uri=spec.catalog_uri,
            attempt_prefix=spec.attempt_prefix,
            returns=spec.returns,
            submission_id=spec.submission_id,
            secrets=self.job.secrets,
            driver=self.job.lease.number,
            spec=spec,
            returned=spec.returned,
        )
        actor_class: Any = ray.remote(FunctionWorker)
        worker = actor_class.options(**actor_options(spec.config.call_resources)).remote(setup)
        try:
            _await(worker.ready.remote())
            self.started.set()
            answer: tuple[Outcome, NodeFailure | None] = _await(worker.run.remote(self._args, self._inputs))
        except ray.exceptions.RayActorError as error:
            return Outcome(), self._death(str(error))
        finally:
            ray.kill(worker, no_restart=True)
        return answer

    def _death(self, said: str) -> NodeFailure:
        """Return why the worker ended, by what it left, or else by what Ray says."""
        from airflow_provider_raynode.runtime.failures import told_by_ray
        from airflow_provider_raynode.runtime.function_call import failure_uri

        uri = failure_uri(self.job.attempt)
        try:
            if self.job.attempt.exists(uri):
                return NodeFailure.from_bytes(self.job.attempt.read_bytes(uri))
        except (CatalogError, SpecError):
            pass
        return told_by_ray(said, None, self._reports.get("reports") or None, what="the function's process")

    def _collect(self, outcome: Outcome) -> Called:
        """Return the fields of the result, and write the table of the steps."""
        from airflow_provider_raynode.runtime.steps import Steps

        found = Called(outcome.value, outcome.metrics, outcome.outputs, warnings=tuple(outcome.warnings))
        if outcome.steps is not None:
            steps = Steps(self.spec, self.job.attempt)
            steps.set_state(outcome.steps)
            table, cut = steps.write(["function"])
            found.steps = dict(table) if table is not None else None
            found.warnings += (cut,) if cut else ()
            steps.remove_parts()
        return found

    def _snapshot(self) -> dict[str, Any]:
        """Return how far the function is, as fields of NodeProgress."""
        from airflow_provider_raynode.runtime.function_call import reports_uri

        running = self.started.is_set()
        fields: dict[str, Any] = {
            "work": "function",
            "phase": "running",
            "total": 1,
            "running": int(running),
            "pending": int(not running),
        }
        if running:
            uri = reports_uri(self.job.attempt)
            try:
                if self.job.attempt.exists(uri):
                    self._reports = json.loads(self.job.attempt.read_bytes(uri))
            except (CatalogError, ValueError):
                pass
        if self._reports:
            fields["training"] = {"step": self._reports["reports"], "metrics": self._reports["metrics"], "workers": 1}
        return fields


def _await(reference: Any) -> Any:
    """Return the answer of an actor; signals are heard meanwhile."""
    import ray

    while not ray.wait([reference], timeout=_LOOK_S)[0]:
        pass
    return ray.get(reference)
