"""What a process reserves: `default_resources`, what a section says of its own, and both together."""

from __future__ import annotations

from typing import Any

import pytest
from config_cases import TUNE

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.units import unit_of
from airflow_provider_raynode.exceptions import ConfigError


def worker(default: dict[str, Any], **scaling: Any) -> dict[str, float]:
    config = RayConfig.load({"ray_train": {"scaling": scaling}, "default_resources": default})
    return unit_of(config).bundles[0]


@pytest.mark.parametrize(
    ("default", "scaling", "bundle"),
    [
        ({}, {}, {"CPU": 1}),
        ({}, {"use_gpu": True}, {"GPU": 1}),
        ({}, {"resources_per_worker": {"licence": 1}}, {"licence": 1}),
        ({"num_cpus": 2}, {}, {"CPU": 2}),
        ({"num_cpus": 2}, {"resources_per_worker": {"CPU": 0.5}}, {"CPU": 0.5}),
        ({"num_cpus": 2, "memory": 5}, {"resources_per_worker": {"CPU": 0.5}}, {"CPU": 0.5, "memory": 5}),
        ({"num_cpus": 2}, {"use_gpu": True}, {"CPU": 2, "GPU": 1}),
        ({"num_gpus": 0.5}, {"use_gpu": True}, {"GPU": 0.5}),
        ({"num_gpus": 0.5}, {"use_gpu": True, "resources_per_worker": {"GPU": 2}}, {"GPU": 2}),
        ({"accelerator_type": "T4"}, {"use_gpu": True}, {"GPU": 1, "accelerator_type:T4": 0.001}),
        ({"accelerator_type": "T4"}, {"accelerator_type": "A100"}, {"CPU": 1, "accelerator_type:A100": 0.001}),
        ({"resources": {"a": 1, "b": 2}}, {"resources_per_worker": {"a": 3, "CPU": 1}}, {"a": 3, "b": 2, "CPU": 1}),
    ],
)
def test_a_worker_has_its_own_and_what_it_leaves_out_by_default(
    default: dict[str, Any], scaling: dict[str, Any], bundle: dict[str, float]
) -> None:
    assert worker(default, **scaling) == bundle


def test_a_trial_has_its_own_and_what_it_leaves_out_by_default() -> None:
    own = {"num_cpus": 3, "resources": {"a": 1}}
    default = {"num_cpus": 1, "memory": 7, "resources": {"a": 5, "b": 2}, "label_selector": {"zone": "a"}}
    config = RayConfig.load({"ray_tune": {**TUNE, "resources": own}, "default_resources": default})
    unit = unit_of(config)
    assert unit.bundles == [{"CPU": 3, "memory": 7, "a": 1, "b": 2}]
    assert unit.labels == [{"zone": "a"}]


def test_what_is_left_out_stays_left_out_on_the_way_to_the_job() -> None:
    """A spec carries every key: none may come to count that the file does not say."""
    for section in ({"ray_tune": TUNE}, {"ray_train": {"scaling": {"use_gpu": True}}}, {"ray_map": {"over": "x"}}, {}):
        config = RayConfig.load(section)
        assert unit_of(RayConfig.model_validate(config.model_dump(mode="json"))) == unit_of(config)


def test_options_of_a_task_of_ray() -> None:
    config = RayConfig.load(
        {"default_resources": {"num_gpus": 0.5, "accelerator_type": "T4", "label_selector": {"a": "b"}}}
    )
    assert config.call_resources.options() == {
        "num_cpus": 1.0, "num_gpus": 0.5, "accelerator_type": "T4", "label_selector": {"a": "b"},
    }  # fmt: skip
    with_memory = RayConfig.load({"default_resources": {"num_cpus": 2, "memory": 5, "resources": {"licence": 1.5}}})
    assert with_memory.call_resources.options() == {"num_cpus": 2.0, "memory": 5, "resources": {"licence": 1.5}}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"num_cpus": 0.00005}, "num_cpus: 5e-05 is below 0.0001, the least that Ray counts"),
        ({"num_gpus": 1.5}, "num_gpus: 1.5 is neither below 1 nor whole"),
        ({"resources": {"GPU": 1}}, "resources.GPU: is Ray's own resource: say it in num_gpus"),
        ({"resources": {"cpu": 1}}, "resources.cpu: names no resource of Ray, did you mean num_cpus?"),
        ({"resources": {"TPU": 3}}, "resources.TPU: 3 is not allowed: a process gets 1, 2, 4 or 8 TPUs"),
        ({"resources": {"HPU": 0.5}}, "resources.HPU: 0.5 is not whole: HPU cannot be shared"),
        ({"resources": {"object_store_memory": 1}}, "resources.object_store_memory: reserves nothing in Ray any more"),
        ({"accelerator_type": "accelerator_type:T4"}, "accelerator_type: 'accelerator_type:T4' is the resource"),
        ({"label_selector": "zone=a"}, "label_selector: 'zone=a' is not a mapping of a label to the value"),
        ({"label_selector": {"zone": 5}}, "label_selector: zone: 5 is not text: put it in quotes"),
        ({"labels": {"zone": "a"}}, "labels: unknown key, did you mean 'label_selector'?"),
    ],
)
def test_what_is_refused_is_named_in_each_section(resources: dict[str, Any], message: str) -> None:
    for config, where in (
        ({"default_resources": resources}, "default_resources"),
        ({"ray_tune": {**TUNE, "resources": resources}}, "ray_tune.resources"),
        ({"ray_map": {"over": "x", "resources": resources}}, "ray_map.resources"),
    ):
        with pytest.raises(ConfigError) as raised:
            RayConfig.load(config)
        assert f"{where}.{message}" in str(raised.value)
