"""Skips and failures that meet, in any order: at a later try, by any kind of skip, in setups, beside an empty list."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, get_current_context, setup, task, task_group, teardown
from airflow.sdk.exceptions import AirflowSkipException


def gives_up():
    raise AirflowSkipException


@task
def good(*values):
    return 1


@task
def breaks(*values):
    raise ValueError("on purpose")


@task(retries=1, retry_delay=timedelta(0))
def breaks_twice():
    raise ValueError("on purpose")


@task
def skips(*values):
    gives_up()


@task(retries=1, retry_delay=timedelta(0))
def skips_at_the_second_try():
    if get_current_context()["ti"].try_number == 1:
        raise ValueError("on purpose")
    gives_up()


@task
def none_of_them():
    return []


def named(function, name, rule="all_success"):
    return function.override(task_id=name, trigger_rule=rule)()


with DAG("masked_by_empty_group"):

    @task_group
    def each(n):
        named(good, "first") >> good(n)

    found = none_of_them()
    breaks() >> each.expand(n=found)
    found >> named(good, "report", "all_done")

with DAG("empty_groups_beside_a_failure_by_rule"):
    numbers = none_of_them()
    failed, skipped = breaks(), skips()
    for rule in ("all_success", "none_failed", "all_done", "all_failed", "none_skipped"):

        @task_group(group_id=f"by_{rule}")
        def by_rule(n, rule=rule):
            named(good, "first", rule) >> named(good, "last", "all_done")
            named(good, "alone")

        failed >> by_rule.expand(n=numbers) >> named(good, f"after_{rule}", rule)

    @task_group
    def over_literals(n):
        named(good, "inside")

    [failed, skipped] >> over_literals.expand(n=[])

with DAG("group_whose_list_fails_after_something_was_skipped"):

    @task_group
    def later(n):
        good(n)

    failing_list = breaks_twice()
    skips() >> later.expand(n=failing_list)

with DAG("masked_by_skipped_setup"):

    @setup
    def skips_itself(x):
        raise AirflowSkipException

    end = named(good, "late")
    skips_itself(named(good, "early")) >> named(good, "between") >> end
    breaks() >> end

with DAG("setups_that_skip_before_and_after_a_failure"):

    @setup
    def first_setup():
        raise AirflowSkipException

    @setup
    def second_setup(x):
        raise AirflowSkipException

    @teardown
    def cleans():
        return "clean"

    one, two = first_setup(), second_setup(named(good, "early"))
    [one, two] >> named(good, "between") >> (both := named(good, "after_both")) >> cleans().as_teardown(setups=[one])
    breaks_twice() >> both
    two >> (between := named(good, "beside"))
    between >> named(good, "whatever", "all_done") >> named(good, "constrained")

with DAG("skipped_first_among_mapped"):

    @task(retries=1, retry_delay=timedelta(0))
    def one_of(n):
        if n == 0:
            raise AirflowSkipException
        raise ValueError(n)

    @task
    def gather(values):
        return list(values)

    gather(one_of.expand(n=[0, 1]))

with DAG("skips_of_operators_before_a_failure"):
    late = breaks_twice()
    by_exit_code = BashOperator(task_id="by_exit_code", bash_command="exit 99")
    by_condition = task.skip_if(lambda context: True)(good.override(task_id="by_condition"))()
    not_to_run = task.run_if(lambda context: False)(good.override(task_id="not_to_run"))()
    in_a_function = skips()
    for number, each_skip in enumerate((by_exit_code, by_condition, not_to_run, in_a_function)):
        [each_skip, late] >> (join := named(good, f"join_{number}")) >> named(good, f"end_{number}", "none_failed")
        [each_skip, late] >> EmptyOperator(task_id=f"podless_{number}")
        join >> named(good, f"below_{number}")

with DAG("skip_at_a_later_try_than_the_failure"):
    [skips_at_the_second_try(), breaks()] >> named(good, "join") >> named(good, "end", "none_failed")

with DAG("mapped_after_a_skip_and_a_failure"):

    @task
    def double(x):
        return 2 * x

    twice = breaks_twice()
    skipped = skips()
    [skipped, twice] >> double.override(task_id="over_literals").expand(x=[1, 2]) >> named(good, "end", "none_failed")
    [skipped, twice] >> double.override(task_id="over_nothing").expand(x=[])
    (
        [skipped, twice]
        >> double.override(task_id="over_a_list").expand(x=none_of_them())
        >> named(good, "after", "all_done")
    )
    skipped >> double.override(task_id="over_a_failed_list").expand(x=twice)

with DAG("over_two_lists_after_a_skip_and_a_failure"):

    @task
    def pairs(x, y=0):
        return [x, y]

    @task
    def some():
        return [1, 2]

    [skips(), breaks_twice()] >> pairs.override(task_id="skipped").expand(x=some(), y=some()) >> named(good, "below")
    [breaks(), skips_at_the_second_try()] >> pairs.override(task_id="failed").expand(x=some(), y=some())

with DAG("teardown_below_a_branch"):

    @task.branch
    def chooses_neither():
        return "chosen"

    @setup
    def makes():
        return "made"

    @teardown
    def takes_away():
        return "gone"

    choice = chooses_neither()
    choice >> named(good, "chosen")
    (made := makes()) >> named(good, "uses")
    [choice, made] >> takes_away().as_teardown(setups=[made]) >> named(good, "after_the_teardown")

with DAG("teardown_below_a_short_circuit"):

    @task.short_circuit
    def closes():
        return False

    @teardown
    def tidies():
        return "tidy"

    [closes(), begun := makes.override(task_id="begins")()] >> tidies().as_teardown(setups=[begun])

with DAG("made_with_the_run_below_a_late_short_circuit"):

    @task.short_circuit(trigger_rule="all_failed")
    def closes_late():
        return False

    @task.short_circuit
    def closes_early():
        return False

    broken, late_circuit = breaks(), closes_late()
    broken >> late_circuit
    (
        [broken, late_circuit]
        >> double.override(task_id="failed_before").expand(x=[1, 2])
        >> named(good, "below", "all_done")
    )
    [breaks_twice(), closes_early()] >> double.override(task_id="skipped_before").expand(x=[1, 2])
