"""Nodes that are one task each: `@task.ray` and RaySubmitJobOperator, on the embedded Ray of the worker or the pod."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_raynode import RaySubmitJobOperator, context

with DAG("tasks_on_ray", schedule=None, params={"word": "ü"}):

    @task.ray(multiple_outputs=True)
    def doubled(values, params, ds=None):
        return {"first": values[0] * 2, "rest": [2 * each for each in values[1:]], "of": [params, context().node_id]}

    @task
    def use(first, rest):
        return [first, *rest]

    found = doubled([1, 2, 3])
    job = RaySubmitJobOperator(
        task_id="job", entrypoint="test {{ params.word }} = ü && python -c 'import ray' && exit 3", do_xcom_push=False
    )
    use(found["first"], found["rest"]) >> job
