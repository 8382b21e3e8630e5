"""How long a RayJob may take: what the node says of time, as KubeRay's deadlines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_raynode.config.kuberay import KubeRay

# Seconds over a limit of the node after which KubeRay takes the cluster away: the start of the cluster takes some. The
# driver knows that deadline and ends a little before it, by itself and with its reason.
GRACE_S = 60


@dataclass(frozen=True)
class Times:
    """Deadlines of a RayJob, in seconds.

    :param active: from its start to its end.
    :param pre_running: from its start until its cluster runs.
    """

    active: int
    pre_running: int


def times_of(cluster: KubeRay, task: Any, fan_out: Any, *, timeout_s: int | None = None) -> Times:
    """Return the deadlines of the RayJob of an execution task.

    :param timeout_s: what the export's settings say instead of the task's execution_timeout.
    """
    limit = timeout_s
    if limit is None and task.execution_timeout is not None:
        limit = math.ceil(task.execution_timeout.total_seconds())
    active = cluster.active_deadline_seconds
    if limit is not None:
        active = min(active, limit + GRACE_S)
    pre_running = cluster.pre_running_deadline_seconds
    if "pre_running_deadline_seconds" not in cluster.model_fields_set and fan_out.startup_timeout_s is not None:
        pre_running = math.ceil(fan_out.startup_timeout_s)
    # Of two deadlines that pass together the nearer cause is told.
    pre_running = min(pre_running, active if limit is None else min(limit, active))
    if fan_out.run_timeout_s is not None:
        active = min(active, pre_running + math.ceil(fan_out.run_timeout_s) + GRACE_S)
    return Times(active, pre_running)
