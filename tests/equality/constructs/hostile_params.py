"""Params with what Argo, Kubernetes, Go, YAML or Linux take for their own: each arrives as it is."""

from __future__ import annotations

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param, get_current_context, task, task_group

TEXTS = {
    "delete": "a\x7fb",
    "nul": "a\x00b",
    "controls": "".join(map(chr, range(1, 32))) + "\x80\x9f\xa0\xad",
    "separators": "a\u2028b\u2029c\u200b\ufeff",
    "flag": "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "private": "\ue000\U0010ffff",
    "surrogate": "a\ud800b",
    "dollars": "cost $$5, $(HOME) $$(HOME) $(AIRFLOW__RAYNODE__CATALOG) $HOME ${HOME}",
    "tags": "{{workflow.name}} {{=1 + 1}} {{inputs.parameters.step}} {{retries}} {{ nothing }}",
    "open": "{{ and }} and {{{ and {{=",
    "quotes": "'\"`\\\n\r\n\t<&>\\u0041 \\x41",
    "json_text": '{"a": [1, "b"]}',
    "number_text": "007",
    "words": "null",
    "spaces": "  \n ",
    "empty": "",
}


@task
def shows():
    return {name: value for name, value in get_current_context()["params"].items() if "\ud800" not in str(value)}


@task
def counts():
    return {name: [ord(each) for each in str(value)] for name, value in get_current_context()["params"].items()}


with DAG("hostile_texts", schedule=None, params=TEXTS):
    shows() >> counts()

with DAG("given_text", schedule=None, params={"who": Param("world", type="string")}):
    shows()

with DAG("hostile_values", schedule=None, params={"deep": {"{{": ["}}", {"$(A)": None}]}, "all": list(TEXTS.values())}):
    counts()

with DAG(
    "hostile_names",
    schedule=None,
    params={
        "json": "yes",
        "name": "a",
        "n": "b",
        "na": "c",
        "names": 1,
        "workflow": {},
        "-dash": True,
        "__proto__": 0,
        "parameters": None,
        "toJson": 1.5,
        "sprig": [],
        "json-": "d",
        "JSON": "e",
        "0": "zero",
    },
):
    shows()

with DAG("one_param_named_json", schedule=None, params={"json": Param("yes", enum=["yes", "no", "$(HOME)"])}):
    shows()

with DAG("big_params", schedule=None, params={"big": [f"item-{n:06d}" for n in range(12_000)], "text": "x" * 150_000}):

    @task
    def sizes(codes):
        return [len(codes), {name: len(value) for name, value in get_current_context()["params"].items()}]

    @task
    def each(code):
        return [code, len(get_current_context()["params"]["big"])]

    BashOperator(task_id="bash", bash_command="echo {{ params.big | length }}") >> sizes("{{ params.big }}")
    each.expand(code=[1, 2])

with DAG("hostile_params_everywhere", schedule=None, params={"text": "$(HOME)\x7f", "ids": ["$$", "{{a}}"]}):

    @task(retries=1, retry_delay=0)
    def listed():
        if get_current_context()["ti"].try_number == 1:
            raise ValueError("on purpose")
        return get_current_context()["params"]["ids"]

    @task_group
    def group(which):
        @task
        def inner(which):
            return [which, get_current_context()["params"]["text"]]

        inner(which)

    @task(trigger_rule="one_success")
    def decided_in_its_pod():
        return get_current_context()["params"]["text"]

    group.expand(which=listed()) >> decided_in_its_pod()
