"""Stages a plain function or a map by hand, as fan-out does, and runs its driver in this process."""

from __future__ import annotations

import itertools
import platform
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from driven import Ran

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.operators._function import stage_function
from airflow_provider_raynode.operators._inputs import stage_inputs
from airflow_provider_raynode.operators._resolve import as_returns
from airflow_provider_raynode.spec import JobRef, NodeSpec, RunContext, Versions, digest, submission_id

_runs = itertools.count()


class Node:
    """One node of one run, attempt after attempt.

    :param config: its sections beside default_resources.
    :param fields: further fields of the spec.
    """

    def __init__(
        self,
        root: Path,
        function: Callable[..., Any],
        config: Mapping[str, Any],
        op_kwargs: Mapping[str, Any] | None = None,
        *,
        returns: Any = (),
        resources: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        self.catalog = Catalog(str(root))
        self.run_context = RunContext(dag_id="dag", run_id=f"run_{next(_runs)}", node_id="node", params={"who": "ü"})
        self._where = (self.run_context.dag_id, self.run_context.run_id, "node", -1)
        self.node = self.catalog.at(self.catalog.node_prefix(*self._where))
        self.config = {"default_resources": {"num_cpus": 1, **(resources or {})}, **config}
        self.op_kwargs = stage_inputs(op_kwargs or {}, self.node.child("inputs"))
        self.function = stage_function(function, self.node)
        self.returns = as_returns(returns)
        self.fields = fields
        self.attempts = 0

    def write(self, *, search_of: int | None = None, attempt: int | None = None) -> tuple[JobRef, NodeSpec]:
        """Write the spec of the next attempt, and return its job."""
        self.attempts = attempt or self.attempts + 1
        spec = NodeSpec(
            submission_id=submission_id(*self._where, self.attempts, self.catalog.uri),
            attempt=self.attempts,
            context=self.run_context,
            function=self.function,
            op_kwargs=self.op_kwargs,
            returns=self.returns,
            config=self.config,
            catalog_uri=self.catalog.uri,
            node_prefix=self.node.prefix_uri,
            staged_by=Versions(python=platform.python_version(), package="test"),
            search_of=search_of,
            **self.fields,
        )
        data = spec.to_bytes()
        self.node.write_bytes(f"{spec.attempt_prefix}/spec.json", data)
        job = JobRef(
            launcher="local",
            submission_id=spec.submission_id,
            attempt=spec.attempt,
            address="local",
            spec_uri=f"{spec.attempt_prefix}/spec.json",
            spec_sha256=digest(data),
            catalog_uri=self.catalog.uri,
            node_prefix=self.node.prefix_uri,
        )
        return job, spec

    def run(self, **options: Any) -> Ran:
        """Run the next attempt's driver to its end, on the Ray that this process is connected to."""
        from airflow_provider_raynode.runtime.driver import Driver, read_spec

        job, _ = self.write(**options)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            spec, attempt = read_spec(job.spec_uri, job.spec_sha256)
            code = Driver(spec, job.spec_sha256, attempt, embedded=False).run()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Ran(job, self.node, code)
