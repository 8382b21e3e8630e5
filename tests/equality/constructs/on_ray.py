"""Nodes that are one task each: `@task.ray` and RaySubmitJobOperator, on the embedded Ray of the worker or the pod."""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_provider_raynode import RaySubmitJobOperator, context

with DAG("tasks_on_ray", schedule=None, params={"word": "ü"}):

    @task.ray
    def doubled(values, params, ds=None):
        return {"doubled": [2 * each for each in values], "word": params["word"], "node": context().node_id}

    @task.ray(multiple_outputs=True)
    def parts(found):
        return {"first": found["doubled"][0], "rest": found["doubled"][1:]}

    @task
    def use(first, rest):
        return [first, *rest]

    split = parts(doubled([1, 2, 3]))
    job = RaySubmitJobOperator(
        task_id="job", entrypoint="test {{ params.word }} = ü && echo {{ run_id }}", do_xcom_push=False
    )
    fails = RaySubmitJobOperator(task_id="fails", entrypoint="exit 3", do_xcom_push=False)
    use(split["first"], split["rest"]) >> job >> fails
