"""An all_success task with a skip and a failure before it: what Airflow sees first decides."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.sensors.python import PythonSensor
from airflow.sdk import DAG, task, task_group
from airflow.sdk.exceptions import AirflowSkipException


@task
def good():
    return 1


@task
def skip():
    raise AirflowSkipException


@task
def fail():
    raise ValueError


def named(function, name, rule="all_success", **options):
    return function.override(task_id=name, trigger_rule=rule, **options)()


with DAG("chosen_arm_fails_before_an_all_success_join"):

    @task.branch
    def choose():
        return "b"

    choose() >> [a := named(good, "a"), b := named(fail, "b")]
    [a, b] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("chosen_arm_fails_before_the_last_task"):

    @task.branch
    def choose_one():
        return "b"

    choose_one() >> [a := named(good, "a"), b := named(fail, "b")]
    [a, b] >> named(good, "join")

with DAG("skip_before_a_failure"):
    named(good, "first") >> (failed := named(fail, "fails"))
    [named(skip, "skips"), failed] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("failure_before_a_skip"):
    named(good, "first") >> (skipped := named(skip, "skips"))
    [named(fail, "fails"), skipped] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("skip_and_failure_at_once"):
    [named(skip, "skips"), named(fail, "fails")] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("skip_before_the_last_of_several_tries"):
    tries = named(fail, "fails", retries=2, retry_delay=timedelta(0))
    [named(skip, "skips"), tries] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("skipped_by_its_rule_before_a_failure"):
    start = named(good, "start")
    start >> (alarm := named(good, "alarm", "one_failed"))
    start >> named(good, "between") >> (failed := named(fail, "fails"))
    [alarm, failed] >> named(good, "join") >> [named(good, "end", "none_failed"), named(good, "after", "all_skipped")]

with DAG("sensor_that_gives_up_before_a_failure"):
    sensor = PythonSensor(
        task_id="senses", python_callable=lambda: False, poke_interval=0.05, timeout=0.1, soft_fail=True
    )
    named(good, "first") >> (failed := named(fail, "fails"))
    [sensor, failed] >> named(good, "join")

with DAG("skip_before_a_failure_and_a_mapped_task"):
    named(good, "first") >> (failed := named(fail, "fails"))

    @task
    def double(x):
        return 2 * x

    [named(skip, "skips"), failed] >> double.expand(x=[1, 2]) >> named(good, "end", "none_failed")

with DAG("skip_before_a_failure_in_a_mapped_group"):

    @task_group
    def group(x):
        @task
        def passes_on(x):
            return x

        @task
        def skips_one(x):
            if x == 1:
                raise AirflowSkipException

        first = passes_on(x)
        join = named(good, "join")
        [skips_one(x), first >> named(fail, "fails")] >> join >> named(good, "end", "none_failed")

    group.expand(x=[0, 1])
