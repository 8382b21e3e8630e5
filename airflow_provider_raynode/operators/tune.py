"""The execution task of a hyperparameter search."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.operators.execution import RayExecutionOperator


class RayTuneOperator(RayExecutionOperator):
    """Run the search that a RayFanOutOperator staged to its end, with its log and progress in the task log.

    On an embedded Ray the search is this task's child process and ends with the task; on a cluster this task attaches
    to the job that fan-out submitted. A task that is killed or timed out stops the job. A retry after a failed attempt
    starts the next attempt of the node.

    Example::

        fan_out = RayFanOutOperator(task_id="fan_out", python_callable=train_model, ray_config="ray_tune.yaml")
        tune = RayTuneOperator(task_id="tune", job=fan_out.output)
        fan_in = RayFanInOperator(task_id="fan_in", job=tune.output)

    :param job: the JobRef that fan-out returned. (templated)
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :return: the JobRef of the attempt that succeeded, for fan-in.
    """

    kinds: ClassVar[tuple[WorkKind, ...]] = ("search",)
