"""RayConfig: reading, resolving, round trips, the schema, the commands, the price of the import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from config_cases import ALL_DOMAINS, DESIGN, GOOD, SPACE, TUNE, tune

from airflow_provider_raynode.config import RayConfig, libraries
from airflow_provider_raynode.config.command import check, print_schema
from airflow_provider_raynode.config.reference import reference
from airflow_provider_raynode.config.schema import json_schema
from airflow_provider_raynode.exceptions import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Write a text to a file and give its path."""

    def write(text: str) -> Path:
        path = tmp_path / "ray.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_design_loads_as_it_stands(file: Any) -> None:
    config = RayConfig.from_file(file(DESIGN))
    assert config.cluster_address == "ray://localhost:10001"
    assert config.container_image == "rayproject/ray-ml:2.8.0-py310"
    assert config.search_space == {
        "learning_rate": {"type": "loguniform", "low": 0.0001, "high": 0.1},
        "batch_size": {"type": "choice", "choices": [16, 32, 64, 128]},
        "hidden_size": {"type": "randint", "low": 64, "high": 512},
    }
    assert config.ray_tune is not None
    assert (config.ray_tune.metric, config.ray_tune.mode, config.ray_tune.num_samples) == ("accuracy", "max", 10)
    assert config.default_resources.memory == 4_000_000_000
    assert not config.catalog.shared


@pytest.mark.parametrize("path", sorted((ROOT / "dags" / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_load(path: Path) -> None:
    assert RayConfig.load(path).warnings == ()


@pytest.mark.parametrize("name", GOOD)
def test_good_config_round_trips(name: str) -> None:
    config = RayConfig.load(GOOD[name])
    dumped = json.loads(json.dumps(config.model_dump(mode="json"), allow_nan=False))
    assert RayConfig.model_validate(dumped) == config
    assert RayConfig.load(config) is config
    again = RayConfig.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert again.model_dump() == config.model_dump()


@pytest.mark.parametrize("name", GOOD)
def test_schema_accepts_good_config_and_its_resolved_form(name: str) -> None:
    schema = jsonschema.Draft202012Validator(json_schema())
    schema.validate(GOOD[name])
    schema.validate(RayConfig.load(GOOD[name]).model_dump(mode="json"))


def test_schema_is_one_and_strict_throughout() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    loose = [
        name
        for name, each in schema["$defs"].items()
        if each.get("type") == "object" and each.get("additionalProperties") is not False
    ]
    assert loose == []
    assert schema["additionalProperties"] is False


def test_search_space_keeps_every_value() -> None:
    space = RayConfig.load(tune(search_space=ALL_DOMAINS)).search_space
    assert space["k"]["choices"] == ["relu", None, 3, True, [1, 2], {"x": None}]
    assert space["k"]["choices"][3] is True
    assert space["r"] == {"type": "constant", "value": {"type": "uniform", "low": None}}
    assert space["m"] == {"n": {"o": {"type": "uniform", "low": 0, "high": 1}, "p": "constant"}, "type": "resnet"}
    assert space["s"] is None
    assert space["größe"] == {"type": "choice", "choices": ["ü"]}


@pytest.mark.parametrize(
    ("section", "samples"),
    [
        ({"search_space": SPACE}, 10),
        ({"search_space": {"a": {"type": "grid_search", "values": [1]}, **SPACE}}, 1),
        ({"search_space": {"a": 5}}, 1),
        ({"search_space": {"a": 5}, "num_samples": 3}, 3),
        ({"search_space": {"a": 5}, "scheduler": {"type": "pbt", "hyperparam_mutations": {"b": [1, 2]}}}, 10),
        ({"search_space": {}, "scheduler": {"type": "pbt_replay", "policy_file": "/p"}}, 1),
    ],
)
def test_num_samples_where_left_out(section: dict[str, Any], samples: int) -> None:
    config = RayConfig.load({"ray_tune": {"metric": "m", "mode": "min", **section}})
    assert config.ray_tune is not None
    assert config.ray_tune.num_samples == samples


def test_metric_and_mode_may_stand_in_different_parts() -> None:
    config = RayConfig.load(
        {
            "ray_tune": {
                "search_space": SPACE,
                "scheduler": {"type": "asha", "mode": "min"},
                "search_algorithm": {"type": "random", "metric": "loss"},
            }
        }
    )
    assert config.ray_tune is not None
    assert (config.ray_tune.metric, config.ray_tune.mode) == ("loss", "min")


def test_actors_are_not_reused_where_resources_change() -> None:
    config = RayConfig.load(tune(scheduler="resource-changing"))
    assert config.ray_tune is not None
    assert not config.ray_tune.reuse_actors


def test_mutated_hyperparameters_are_part_of_the_search_space() -> None:
    uniform = {"type": "uniform", "low": 0, "high": 2}
    mutations = {"lr": uniform, "size": [1, 2], "n": {"m": uniform}}
    pbt = RayConfig.load(tune(search_space={"lr": 0.1}, scheduler={"type": "pbt", "hyperparam_mutations": mutations}))
    assert pbt.search_space == {"lr": 0.1, "size": {"type": "choice", "choices": [1, 2]}, "n": {"m": uniform}}
    pb2 = RayConfig.load(tune(search_space={"a": 1}, scheduler={"type": "pb2", "hyperparam_bounds": {"lr": [0, 2]}}))
    assert pb2.search_space == {"a": 1, "lr": uniform}


@pytest.mark.parametrize(
    "spelling", ["ASHAScheduler", "asha", "ASHA", "async_hyperband", "Async-HyperBand", "asynchyperband"]
)
def test_names_are_found_in_any_spelling(spelling: str) -> None:
    config = RayConfig.load(tune(scheduler=spelling))
    assert config.ray_tune is not None
    assert config.ray_tune.scheduler is not None
    assert config.ray_tune.scheduler.type == "ASHAScheduler"


def test_numbers_that_a_template_rendered_are_numbers() -> None:
    space = {"lr": {"type": "Log_Uniform", "low": "1e-4", "high": "0.1"}}
    config = RayConfig.load(tune(num_samples="4", time_budget_s="1e2", reuse_actors="False", search_space=space))
    assert config.ray_tune is not None
    assert (config.ray_tune.num_samples, config.ray_tune.time_budget_s, config.ray_tune.reuse_actors) == (4, 100, False)
    assert config.search_space["lr"] == {"type": "loguniform", "low": 0.0001, "high": 0.1}


def test_empty_sections_are_defaults(file: Any) -> None:
    text = yaml.safe_dump({"ray_tune": TUNE}) + "ray_cluster:\ndefault_resources:\ncatalog:\n"
    assert RayConfig.from_file(file(text)) == RayConfig.load({"ray_tune": TUNE})


def test_models_are_frozen() -> None:
    config = RayConfig.load({"ray_tune": TUNE})
    with pytest.raises(ValueError, match="frozen"):
        config.ray_tune = None  # type: ignore[misc]


def test_image_uri_is_the_container_image_too() -> None:
    assert (
        RayConfig.load({"ray_cluster": {"runtime_env": {"image_uri": "repo/image:1"}}}).container_image
        == "repo/image:1"
    )
    assert RayConfig.load({}).container_image is None


@pytest.mark.parametrize("value", [5, None, ["a"]])
def test_load_refuses_other_types(value: Any) -> None:
    with pytest.raises(ConfigError, match="is not a path, a dict or a RayConfig"):
        RayConfig.load(value)


def test_missing_library_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    config = tune(search_algorithm="optuna")
    with pytest.raises(
        ConfigError, match=r"^here: ray_tune.search_algorithm.type: OptunaSearch needs the library optuna"
    ):
        RayConfig.load(config, source="here")
    with pytest.raises(ConfigError, match=r"pip install 'optuna>=4.0' \(or name the cluster that has it"):
        RayConfig.load(config)
    elsewhere = RayConfig.load({**config, "ray_cluster": {"address": "http://head:8265"}})
    assert [each.module for each in elsewhere.missing_libraries()] == ["optuna"]
    with pytest.raises(ConfigError, match="optuna"):
        elsewhere.check_libraries()
    RayConfig.model_validate(config)  # a spec that is read back is not checked again
    pb2 = RayConfig.model_validate(tune(scheduler={"type": "pb2", "hyperparam_bounds": {"lr": [0, 1]}}))
    assert [each.requirement for each in pb2.missing_libraries()] == ["scikit-learn>=1.5"]


def test_check_prints_the_resolved_config(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(file(DESIGN)) == 0
    printed = capsys.readouterr().out
    assert RayConfig.load(yaml.safe_load(printed)) == RayConfig.from_file(file(DESIGN))
    assert yaml.safe_load(printed)["ray_tune"]["metric"] == "accuracy"


def test_check_prints_the_errors(file: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = file("ray_tune: {metrik: a}")
    assert check(path) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"{path}: ray_tune.metrik: unknown key, did you mean 'metric'?")


def test_printed_schema_is_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    print_schema()
    assert json.loads(capsys.readouterr().out) == json_schema()


def test_reference_is_what_the_models_say() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    command = "python -m airflow_provider_raynode.config.reference > docs/configuration.md"
    assert written == reference(), f"docs/configuration.md is out of date: {command}"


def test_yaml_of_the_reference_loads(file: Any) -> None:
    example = reference().partition("```yaml\n")[2].partition("```")[0]
    config = RayConfig.from_file(file(example))
    assert config.search_space["learning_rate"]["low"] == 0.0001
    assert config.default_resources.memory == 4_000_000_000


def test_import_is_cheap_and_pure() -> None:
    code = """
import sys, time
import pydantic, yaml, difflib, importlib.util
start = time.perf_counter()
import airflow_provider_raynode.config
took = time.perf_counter() - start
heavy = {name.partition('.')[0] for name in sys.modules} & {'ray', 'airflow', 'numpy', 'pandas', 'pyarrow'}
print(took, sorted(heavy))
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(3)
    ]
    assert {heavy.strip() for _, heavy in runs} == {"[]"}
    assert min(float(took) for took, _ in runs) < 1


def test_conditional_space_is_normalised_at_every_depth() -> None:
    config = RayConfig.load(GOOD["conditional"])
    sgd, adam, uniform, literal, values = config.search_space["x"]["choices"]
    assert sgd["momentum"] == uniform == {"type": "uniform", "low": 0.0, "high": 1.0}
    assert sgd["init"] == {"low": 0, "high": 1}  # inside a choice, bounds without a type are a value
    assert adam["inner"]["type"] == "choice"
    assert adam["inner"]["choices"][1]["deep"]["q"]["type"] == "qrandint"
    assert literal == {"type": "constant", "value": {"type": "uniform", "low": 0, "high": 1}}
    assert values == [1, [2]]
    assert RayConfig.load(config.model_dump(mode="json")) == config
