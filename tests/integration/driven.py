"""A driver's run, as the fixture `run` of conftest.py makes it: on one embedded Ray per module, without Airflow."""

from __future__ import annotations

from typing import Any

from staged import result_of

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.spec import JobRef, NodeResult


class Ran:
    """An ended attempt: its result, its outputs, its trials table."""

    def __init__(self, job: JobRef, node: Catalog, code: int) -> None:
        self.job, self.node, self.code = job, node, code
        self.result: NodeResult = result_of(job, node)

    @property
    def best(self) -> Any:
        assert self.result.best is not None, self.result.failure
        return self.result.best

    @property
    def failure(self) -> Any:
        assert self.result.failure is not None
        assert self.code == 1
        return self.result.failure

    def output(self, name: str) -> Any:
        return self.node.load(self.result.outputs[name])

    @property
    def table(self) -> Any:
        assert self.result.trials is not None
        return self.node.load(self.result.trials)
