"""Setups and teardowns: nested, several, in groups, with skips and rules between them."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, TaskGroup, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException


@task
def work():
    return "work"


@task
def fail():
    raise ValueError


@task
def skip():
    raise AirflowSkipException


def n(function, task_id, rule="all_success", **kw):
    return function.override(task_id=task_id, trigger_rule=rule, **kw)()


def pair(name, make=work, gone=work, **kw):
    a, z = n(make, f"make_{name}"), n(gone, f"gone_{name}", "all_done_setup_success")
    return a.as_setup() if hasattr(a, "as_setup") else a, z.as_teardown(setups=a, **kw)


with DAG("nested_setups"):
    a, z = pair("outer")
    b, y = pair("inner")
    a >> b >> n(fail, "w") >> y >> z

with DAG("nested_setups_inner_fails"):
    a, z = pair("outer")
    b, y = pair("inner", make=fail)
    a >> b >> n(work, "w") >> y >> z

with DAG("two_scopes_beside"):
    a, z = pair("one")
    b, y = pair("two", make=fail)
    [a, b] >> n(work, "both") >> [z, y]
    a >> n(work, "only_one") >> z

with DAG("two_setups_one_skipped"):
    a, b = n(work, "a").as_setup(), n(skip, "b").as_setup()
    n(work, "gone").as_teardown(setups=[a, b])
    [a, b] >> n(work, "w") >> n(work, "x", "all_done")

with DAG("upstream_of_a_setup_fails"):
    a, z = pair("one")
    n(fail, "before") >> a >> n(work, "w") >> z

with DAG("upstream_of_a_setup_is_skipped"):
    a, z = pair("one")
    n(skip, "before") >> a >> n(work, "w") >> z

with DAG("branch_past_a_setup"):

    @task.branch
    def choose():
        return "other"

    a, z = pair("one")
    choose() >> [a, n(work, "other")]
    a >> n(work, "w") >> z

with DAG("rules_below_a_setup"):
    a, z = pair("one", make=skip)
    first = n(work, "first")
    a >> first
    for rule in ("all_done", "none_failed", "one_failed", "all_skipped", "one_success", "always"):
        first >> n(work, f"then_{rule}", rule) >> z

with DAG("rules_below_a_failed_setup"):
    a, z = pair("one", make=fail)
    first = n(work, "first")
    a >> first
    for rule in ("all_done", "none_failed", "one_failed", "all_skipped", "all_failed", "always"):
        first >> n(work, f"then_{rule}", rule) >> z

with DAG("teardown_in_a_group"):
    with TaskGroup("g") as g:
        a, z = pair("one", gone=fail)
        a >> n(work, "w") >> z
    g >> n(work, "end")

with DAG("teardown_failure_counts"):
    a, z = pair("one", gone=fail, on_failure_fail_dagrun=True)
    a >> n(work, "w") >> z

with DAG("only_teardown"):
    n(work, "w") >> n(work, "z").as_teardown()
    n(fail, "v") >> n(work, "y").as_teardown()

with DAG("setup_retries"):

    @task(retries=1, retry_delay=timedelta(0))
    def again():
        if get_current_context()["ti"].try_number == 1:
            raise ValueError
        return 2

    a, z = pair("one", make=again, gone=again)
    a >> n(work, "w") >> z

with DAG("teardown_skips_itself"):
    a, z = pair("one", gone=skip)
    a >> n(fail, "w") >> z >> n(work, "after", "all_done")
