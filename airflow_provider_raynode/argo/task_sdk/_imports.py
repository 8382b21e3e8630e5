"""The import of Airflow's task runner: most of what a pod with a short task costs."""

from __future__ import annotations

import gc


def import_task_runner(*, own_process: bool) -> None:
    """Import what runs tasks, in one go, before the DAG file asks for parts of it.

    :param own_process: this process is there for one task. Then Python's garbage collector rests meanwhile, and leaves
        alone for good what has been made: a third of the import's time is its search among objects that stay until the
        end, and as much again is its last search when the process ends.
    """
    rests = own_process and gc.isenabled()
    if rests:
        gc.disable()
    try:
        import airflow.sdk.execution_time.supervisor
        import airflow.sdk.execution_time.task_runner  # noqa: F401
    finally:
        if rests:
            gc.freeze()
            gc.enable()
