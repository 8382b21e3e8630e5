"""The work of a map: from the function and its items to one list of results."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import BindingError, NodeFailedError
from airflow_provider_raynode.runtime.work import Job, Work
from airflow_provider_raynode.spec import MapEnd, MapEnding, NodeFailure

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_map import RayMap
    from airflow_provider_raynode.runtime.function import FunctionSource
    from airflow_provider_raynode.runtime.map_items import Items
    from airflow_provider_raynode.runtime.map_parts import Part
    from airflow_provider_raynode.runtime.map_pool import MapRun
    from airflow_provider_raynode.runtime.map_state import MapState
    from airflow_provider_raynode.runtime.output import Output

log = logging.getLogger("airflow_provider_raynode.driver")

# Indexes of failed items that the result itself names; the output `errors` has all.
FAILED_NAMED = 100


@dataclass
class Mapped:
    """What a map left."""

    items: MapEnd
    outputs: dict[str, dict[str, Any]]
    failed: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


class MapFailedError(NodeFailedError):
    """The map has no whole result; `failure` says why."""

    def __init__(self, failure: NodeFailure, found: Mapped) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.found = found


class MapWork(Work):
    """Runs `ray_map`."""

    unit = "worker"

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._source: FunctionSource | None = None
        self._inputs: dict[str, Any] = {}
        self._items: Items | None = None
        self._run: MapRun | None = None
        self._state: MapState | None = None

    @property
    def _map(self) -> RayMap:
        section = self.spec.config.ray_map
        assert section is not None
        return section

    def prepare(self) -> None:
        """Read the function, its inputs and how many items there are, and check that they fit each other."""
        from airflow_provider_raynode.runtime.binding import check_binding, with_parameters
        from airflow_provider_raynode.runtime.function import read_function
        from airflow_provider_raynode.runtime.inputs import load_inputs
        from airflow_provider_raynode.runtime.map_items import items_of

        node = Catalog(self.spec.catalog_uri).at(self.spec.node_prefix)
        self._source = read_function(self.spec.function, node)
        function, over = self._source.load(), self._map.over
        op_kwargs = with_parameters(function, (), self.spec.op_kwargs, self.spec.context.parameters)
        if over not in op_kwargs:
            import difflib

            near = difflib.get_close_matches(over, op_kwargs, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            named = ", ".join(sorted(op_kwargs)) or "nothing"
            raise BindingError(f"ray_map.over names {over!r}, which op_kwargs does not give{hint}; it gives: {named}")
        check_binding(function, (), op_kwargs, searched=False)
        value = op_kwargs.pop(over)
        self._items = items_of(over, value, self._map.batch_size, node)
        self._inputs = load_inputs(op_kwargs, node)

    def asked(self) -> dict[str, float]:
        """Return what a worker reserves."""
        return self.spec.config.call_resources.bundle()

    def cut_short(self, failure: NodeFailure) -> dict[str, Any]:
        """Return how many items have run."""
        return {} if self._run is None else {"items": self._run.end("stopped", failure.message)}

    def run(self, output: Output) -> dict[str, Any]:
        """Run the items and put their results together."""
        from airflow_provider_raynode.runtime.map_pool import MapRun
        from airflow_provider_raynode.runtime.map_state import MapState
        from airflow_provider_raynode.runtime.map_worker import MapSetup
        from airflow_provider_raynode.runtime.placement import check
        from airflow_provider_raynode.runtime.progress import ProgressWriter

        spec, job = self.spec, self.job
        assert self._source is not None
        assert self._items is not None
        resources = spec.config.call_resources
        self.resources = check(unit_of(spec.config), embedded=job.embedded)
        state = self._state = MapState(spec, job.attempt)
        done = state.begin(self._items.total)
        self.restored = sum(part.stop - part.first for part in done)
        setup = MapSetup(
            function=self._source,
            run=spec.context,
            attempt=spec.attempt,
            catalog_uri=spec.catalog_uri,
            attempt_prefix=spec.attempt_prefix,
            submission_id=spec.submission_id,
            secrets=job.secrets,
            driver=job.lease.number,
            over=self._map.over,
            parts_prefix=state.parts.prefix_uri,
            keep=self._map.on_error == "keep",
            item_timeout_s=self._map.item_timeout_s,
        )
        run = self._run = MapRun(
            self._map, setup, resources, self._items, done, state, output.workers, fixed=job.embedded
        )
        run.begun = self.started
        if self.restored:
            log.info("raynode: going on with a map: %d of %d items are done", self.restored, self._items.total)
        writer = ProgressWriter(job.attempt, f"{spec.attempt_prefix}/progress.json")
        writer.start(run.snapshot)
        phase = "failed"
        try:
            with job.phase("map"):
                failure = run.work(self._inputs)
            if failure is not None:
                ending: MapEnding = "incomplete" if failure.item is None else "failed_item"
                raise MapFailedError(failure, Mapped(run.end(ending, failure.message), {}))
            writer.write(phase="collecting")
            with job.phase("collect"):
                found = self._collect(run, state)
            phase = "done"
        finally:
            writer.stop(phase=phase)
        return dict(vars(found))

    def _collect(self, run: MapRun, state: MapState) -> Mapped:
        from itertools import islice

        from airflow_provider_raynode.runtime.map_parts import failed_items, put_errors, put_results

        parts = sorted(run.parts)
        end = run.end("all_items", "every item ended")
        if (gap := _gap(parts, end.items)) is not None:
            message = f"item {gap} has no result, though every item ended: this is an error of the node itself"
            raise MapFailedError(NodeFailure(type="MapIncomplete", message=message), Mapped(end, {}))
        outputs = {"results": dict(put_results(parts, state.parts, self.job.attempt))}
        found = Mapped(end, outputs)
        if end.failed:
            outputs["errors"] = dict(put_errors(parts, state.parts, self.job.attempt))
            found.failed = tuple(islice(failed_items(parts, state.parts), FAILED_NAMED))
            first = run.first_failure(found.failed[0])
            found.warnings = (f"{end.failed} of {end.items} items failed; the first, {first}",)
            if end.failed == end.items:
                # There is nothing to keep, and a retry tries them all.
                state.remove()
                found.outputs = {"errors": outputs["errors"]}
                found.items = run.end("failed_item", "every item failed")
                message = f"every item failed ({end.failed}); the first, {first}"
                raise MapFailedError(NodeFailure(type="AllItemsFailed", message=message, item=0), found)
        return found

    def tidy(self) -> None:
        """Remove the parts of the results: until the result was sealed, a retry would have gone on from them."""
        if self._state is not None:
            self._state.remove_all()


def _gap(parts: list[Part], items: int) -> int | None:
    """Return the first item that no part has, None where all have one."""
    begin = 0
    for part in parts:
        if part.first != begin:
            return begin
        begin = part.stop
    return None if begin == items else begin
