"""The execution task of a function, or of a map over items."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.operators.execution import RayExecutionOperator


class RayTaskOperator(RayExecutionOperator):
    """Run the function, or the map of a function over items, that a RayFanOutOperator staged, to its end.

    On an embedded Ray the work ends with the task; on a cluster this task attaches to the job that fan-out submitted. A
    task that is killed or timed out stops the job. A retry after a failed attempt starts the next attempt of the node:
    it calls a function anew, and of a map the items that have no result yet.

    Example::

        fan_out = RayFanOutOperator(task_id="fan_out", python_callable=score, ray_config={"ray_map": {"over": "texts"}})
        run = RayTaskOperator(task_id="run", job=fan_out.output)
        fan_in = RayFanInOperator(task_id="fan_in", job=run.output)

    :param job: the JobRef that fan-out returned. (templated)
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :return: the JobRef of the attempt that succeeded, for fan-in.
    """

    kinds: ClassVar[tuple[WorkKind, ...]] = ("function", "map")
