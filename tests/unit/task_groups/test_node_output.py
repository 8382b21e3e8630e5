"""A node and the parts of its output as arguments of other tasks, as the DAG file and the serialised DAG have them."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, TaskGroup, task, task_group
from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_raynode import RayNode, metric, pickled, ray_node
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.operators._output import KnownOutput, NodeOutput, at

CONFIG: dict[str, Any] = {
    "ray_tune": {
        "metric": "score",
        "mode": "max",
        "search_space": {
            "x": {"type": "uniform", "low": 0, "high": 1},
            "layers": {"type": "constant", "value": [8, 4]},
            "a?b/ü": 3,
        },
    }
}


def fit(config: dict[str, Any]) -> dict[str, Any]:
    return {"score": config["x"]}


def node(group_id: str = "search", **arguments: Any) -> RayNode:
    return ray_node(group_id, **{"python_callable": fit, "ray_config": CONFIG, **arguments})


@task
def use(*values: Any, named: Any = None) -> None:
    print(values, named)


def upstream(dag: DAG, task_id: str) -> set[str]:
    return set(dag.get_task(task_id).upstream_task_ids)


def round_trip(dag: DAG) -> Any:
    """The DAG as the scheduler has it."""
    dag.validate()
    dag.check_cycle()
    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def test_parts_and_the_node_itself_make_dependencies() -> None:
    with DAG("dependencies", schedule=None) as dag:
        made = node(returns=[pickled("model")])
        use.override(task_id="part")(made.output["best_config"]["layers"][0])
        use.override(task_id="named")(made.outputs["model"], named=made.best_metrics["score"])
        use.override(task_id="itself")(made)
        use.override(task_id="deep")([1, {"k": (made, 2)}], named={"n": made})
        node("other", op_kwargs={"model": made.outputs["model"], "tuned": made}, python_callable=lambda **_: None)
        PythonOperator(task_id="classic", python_callable=print, op_args=[made], op_kwargs={"a": made.trials})
        node("file", parameters_file=made.outputs["model"]["uri"])
        BashOperator(task_id="env", bash_command="true", env={"T": made.best_trial})
    for each in ("part", "named", "itself", "deep", "other.fan_out", "classic", "env", "file.fan_out"):
        assert upstream(dag, each) == {"search.fan_in"}, each
    deep = dag.get_task("deep")
    assert isinstance(deep.op_args[0][1]["k"][0], NodeOutput), "the output stands in the node's place"
    scheduler = round_trip(dag)
    assert set(scheduler.get_task("itself").upstream_task_ids) == {"search.fan_in"}
    assert dag.get_task("search.fan_in").asked.keys() == {
        ("best_config",),
        ("best_config", "layers"),
        ("best_config", "layers", 0),
        ("outputs",),
        ("outputs", "model"),
        ("outputs", "model", "uri"),
        ("best_metrics",),
        ("best_metrics", "score"),
        ("trials",),
        ("best_trial",),
    }


def test_an_argument_given_later() -> None:
    with DAG("later", schedule=None) as dag:
        made = node()
        late = PythonOperator(task_id="late", python_callable=print)
        late.op_kwargs = {"a": made, "b": made.best_trial}
    assert upstream(dag, "late") == {"search.fan_in"}
    assert isinstance(late.op_kwargs["a"], NodeOutput)


def test_every_way_to_make_a_node() -> None:
    with DAG("ways", schedule=None) as dag:

        @task_group
        def around() -> RayNode:
            return node("inner")

        with TaskGroup("outer"):
            outer = RayNode("n", python_callable=fit, ray_config=CONFIG)
        unprefixed = node("plain", prefix_group_id=False)
        use.override(task_id="a")(around())
        use.override(task_id="b")(outer)
        use.override(task_id="c")(unprefixed.best_config)
    assert upstream(dag, "a") == {"around.inner.fan_in"}
    assert upstream(dag, "b") == {"outer.n.fan_in"}
    assert upstream(dag, "c") == {"plain_fan_in"}
    round_trip(dag)


def test_mapping_over_a_part_has_a_task_whose_entries_airflow_counts() -> None:
    @task
    def one(i: Any, named: Any = None) -> Any:
        return i

    with DAG("mapped", schedule=None) as dag:
        made = node()
        one.override(task_id="layers").expand(i=made.best_config["layers"])
        one.override(task_id="again").partial(named=made).expand(i=made.output["best_config"]["layers"])
        one.override(task_id="changed").expand(i=made.best_config["layers"].map(lambda each: each + 1))
        one.override(task_id="zipped").expand(i=made.best_config["layers"].zip(made.best_config["layers"]))
        one.override(task_id="whole").expand(i=made.output)
        one.override(task_id="literal").expand(i=[made, made.best_trial])
        one.override(task_id="dicts").expand_kwargs([{"i": made}, {"i": made.best_trial}])
        one.override(task_id="odd").expand(i=made.best_config["a?b/ü"])

        @task_group
        def group(i: Any) -> None:
            one.override(task_id="in_group")(i)

        group.expand(i=made.best_config["layers"])
    part = "search.each_best_config_layers"
    assert {each for each in dag.task_ids if ".each_" in each} == {part, "search.each_best_config_a-b-"}
    for each in ("layers", "again", "changed", "zipped", "group.in_group"):
        assert part in upstream(dag, each), each
    for each in ("whole", "literal", "dicts"):
        assert upstream(dag, each) == {"search.fan_in"}
    scheduler = round_trip(dag)
    assert part in copy.deepcopy(dag).task_ids
    assert dag.partial_subset("layers", include_upstream=True).task_ids
    expanded = scheduler.get_task("layers")._get_specified_expand_input().value["i"]
    assert (expanded.operator.task_id, expanded.key) == (part, "return_value")


def test_a_node_of_a_mapped_group_taken_outside() -> None:
    with DAG("outside", schedule=None) as dag:

        @task
        def one(i: Any) -> Any:
            return i

        @task_group
        def search(n: int) -> RayNode:
            made = node("n")
            use.override(task_id="inside")(made, n, named=made.best_config)
            return made

        made = search.expand(n=[1, 2])
        use.override(task_id="all")(made, named=made.best_config["x"])
        one.override(task_id="each").expand(i=made.output)
        one.override(task_id="each_x").expand(i=made.best_config["x"])
    assert upstream(dag, "search.inside") == {"search.n.fan_in"}
    assert upstream(dag, "all") == {"search.n.fan_in"}
    assert "search_n_fan_in_each" in upstream(dag, "each")
    assert "search_n_fan_in_each_best_config_x" in upstream(dag, "each_x")
    assert dag.get_task("search_n_fan_in_each").get_closest_mapped_task_group() is None
    round_trip(dag)


@pytest.mark.parametrize(
    ("take", "message"),
    [
        (
            lambda made: made.output["best_confg"],
            r"output\['best_confg'\] is not there \(did you mean 'best_config'\?\)",
        ),
        (lambda made: made.output["model"], r"the output 'model' is output\['outputs'\]\['model'\]"),
        (lambda made: made.output["x"], r"the hyperparameter 'x' is output\['best_config'\]\['x'\]"),
        (lambda made: made.output[0], r"output\[0\] is not there"),
        (lambda made: made.outputs["modle"], r"did you mean 'model'\?\): there is 'model', 'note', 'checkpoint'"),
        (lambda made: made.outputs["undeclared"], "an output that others take is declared in returns"),
        (lambda made: made.outputs["acc"], r"declared as metric\('acc'\): take output\['best_metrics'\]\['acc'\]"),
        (
            lambda made: made.best_config["y"],
            r"\['best_config'\]\['y'\] is not there.*: there is 'x', 'layers', 'a\?b/ü'",
        ),
        (lambda made: made.best_trial["id"], "the best trial is its id, a text"),
    ],
)
def test_a_name_that_cannot_be_there_is_an_error_of_the_dag_file(take: Any, message: str) -> None:
    with DAG("wrong", schedule=None):
        made = node(returns=[pickled("model"), metric("acc"), "note"])
        with pytest.raises(ConfigError, match=message) as caught:
            take(made)
    assert re.match(rf"{re.escape(__file__)}, line \d+: DAG 'wrong', node 'search': output\[", str(caught.value))


def test_names_that_only_the_run_can_tell(tmp_path: Path) -> None:
    with DAG("open", schedule=None):
        made = node(returns=[pickled("model")], ray_config="{{ params.config }}.yaml")
        for part in (made.best_config["any"], made.best_metrics["any"], made.outputs["checkpoint"]):
            assert isinstance(part, PlainXComArg)
        assert node("free").outputs["any"].path == ("outputs", "any")
        policy = tmp_path / "pbt_policy_0.txt"
        policy.write_text("")
        replay = {
            "metric": "score",
            "mode": "max",
            "scheduler": {"type": "PopulationBasedTrainingReplay", "policy_file": str(policy)},
        }
        replayed = node("replayed", python_callable=lambda **_: None, ray_config={"ray_tune": replay})
        assert replayed.best_config["of_its_file"].path == ("best_config", "of_its_file")


def test_what_works_in_a_task_only_says_so() -> None:
    with DAG("python", schedule=None):
        made = node()
    with pytest.raises(
        TypeError, match=r"cannot be iterated over in the DAG file\. Its value is known when a task runs"
    ):
        list(made.output["best_config"])
    with pytest.raises(TypeError, match="cannot be searched in the DAG file"):
        _ = "x" in made.best_config
    with pytest.raises(TypeError):
        len(made.output)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an index is a name or a number, not a slice"):
        made.outputs[:1]  # type: ignore[index]
    with pytest.raises(
        AttributeError, match=r"has no attribute 'best_config'; a part is taken by its name: \['best_con"
    ):
        made.output.best_config  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'get'"):
        made.output.get("best_config")


def test_outputs_are_values() -> None:
    with DAG("values", schedule=None):
        made = node()
    assert copy.deepcopy(made.best_config["layers"]).path == ("best_config", "layers")
    assert made.best_config == made.output["best_config"]
    assert made.best_config != made.best_metrics
    assert isinstance(made.output, XComArg)


def test_the_text_of_an_output_is_a_template_of_odd_names_too() -> None:
    """The names are literals of Jinja's, whatever is in them."""
    from jinja2.sandbox import SandboxedEnvironment

    seen: list[Any] = []

    class Task:
        def rendered(self, ti: Any, path: list[Any]) -> str:
            seen.append((ti, path))
            return "value"

    class Dag:
        def get_task(self, task_id: str) -> Task:
            assert task_id == "search.fan_in"
            return Task()

    odd = ["a?b/ü", 'it\'s {{ x }} "q" %}', "\\n", "😀", 0, "}}"]
    with DAG("template", schedule=None):
        made = node(ray_config="{{ params.config }}.yaml")
    part = made.best_config
    for name in odd:
        part = part[name]
    text = f"before {part} after"
    rendered = SandboxedEnvironment().from_string(text).render(dag=Dag(), ti="ti")
    assert rendered == "before value after"
    assert seen == [("ti", ["best_config", *odd])]


def test_at() -> None:
    value = {"outputs": {"model": {"uri": "u"}}, "layers": [1, [2, 3]], "none": None, "": {"": 1}}
    assert at(value, ()) is value
    assert at(value, ("layers", 1, -1)) == 3
    assert at(value, ("", "")) == 1
    for path, message in [
        (
            ("outputs", "modl"),
            r"output\['outputs'\]\['modl'\] is not there \(did you mean 'model'\?\): there is 'model'",
        ),
        (("layers", 2), r"output\['layers'\]\[2\] is not there: there is a list of 2"),
        (("layers", "0"), r"output\['layers'\]\['0'\] is not there: there is a list of 2"),
        (("none", "x"), r"output\['none'\]\['x'\] is not there: there is None, which has no parts"),
        (("outputs", 0), r"output\['outputs'\]\[0\] is not there: there is 'model'"),
        (("outputs", "model", "uri", 0), "there is 'u', which has no parts"),
    ]:
        with pytest.raises(ConfigError, match=message):
            at(value, path)


def test_nothing_is_known_of_a_fan_in_by_itself() -> None:
    KnownOutput("n").check(())
    KnownOutput("n").check(("outputs", "any", "uri"))
    with pytest.raises(ConfigError):
        KnownOutput("n").check(("any",))
