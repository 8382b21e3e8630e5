"""The section `ray_train`: what it takes, what is refused and in which words, and that Ray takes what it takes."""
# ruff: noqa: E501  one case per line

from __future__ import annotations

import dataclasses
import inspect
import random
from typing import Any

import jsonschema
import pytest
from config_cases import TUNE

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.frameworks import FRAMEWORKS
from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.config.scaling import TPU_VERSIONS, Scaling, chips_per_host, tpu_version
from airflow_provider_raynode.config.schema import json_schema
from airflow_provider_raynode.config.train import RayTrain
from airflow_provider_raynode.exceptions import ConfigError

GPU = {"num_workers": 2, "use_gpu": True}
# Where the library of a trainer need not be installed here.
ELSEWHERE = {"ray_cluster": {"address": "http://head:8265"}}
TPU = {"num_workers": 4, "use_tpu": True, "topology": "4x4", "accelerator_type": "TPU-V6E"}


def train(**section: Any) -> dict[str, Any]:
    return {"ray_train": section}


def scaled(**scaling: Any) -> dict[str, Any]:
    return train(scaling=scaling)


def torch(scaling: dict[str, Any] | None = None, **framework: Any) -> dict[str, Any]:
    return train(trainer="torch", framework_config=framework, scaling=scaling or {})


GOOD: dict[str, dict[str, Any]] = {
    "nothing": train(),
    "rays own names": train(scaling_config={"num_workers": 2}, failure_config={"max_failures": 1}, checkpoint_config={"num_to_keep": 1}, logging_config={"log_level": "debug"}),
    "torch": torch({"num_workers": "2"}, backend="gloo", init_method="tcp", timeout_s="60"),
    "torch by device": torch(GPU, backend="cpu:gloo,cuda:nccl"),
    "torch, a part of a GPU each over gloo": torch({**GPU, "resources_per_worker": {"GPU": 0.5}}, backend="gloo"),
    "torch, parts of GPUs that two cannot share": torch({**GPU, "resources_per_worker": {"GPU": 0.6}}),
    "torch, parts of GPUs on machines of their own": torch({**GPU, "resources_per_worker": {"GPU": 0.5}, "placement_strategy": "STRICT_SPREAD"}),
    "xgboost": train(trainer="xgboost", framework_config={"xgboost_communicator": "rabit"}),
    "lightgbm": train(trainer="lightgbm", framework_config={}),
    "tensorflow": {**train(trainer="tensorflow", framework_config=None), **ELSEWHERE},
    "jax": {**train(trainer="jax", scaling=TPU, framework_config={"use_tpu": True}), **ELSEWHERE},
    "elastic": scaled(num_workers=[1, "4"], elastic_resize_monitor_interval_s=5, resources_per_worker={"CPU": 0.5, "memory": 1e9, "licence": 1.5}),
    "labels": scaled(num_workers=2, label_selector=[{"ray.io/market-type": "!spot"}, {"zone": "in(a, b)"}]),
    "accelerator": scaled(accelerator_type="A100"),
    "metric": train(metric="loss", mode="min", stop={"loss": 0.1, "training_iteration": 5}, time_budget_s=60, report_timeout_s=None),
    "data": train(data={"train": "rows", "test": "s3://b/x", "validation": {"op_kwarg": "held_out", "shard": "no"}}),
    "everything of Ray": train(
        failure={"max_failures": 2, "controller_failure_limit": 3, "max_preemption_failures": 0, "relax_collectives_on_preemption": True, "preemption_grace_s": 5},
        checkpoint={"num_to_keep": 2, "checkpoint_score_attribute": "loss", "checkpoint_score_order": "min"},
        logging={"log_level": "WARNING"}, worker_runtime_env={"env_vars": {"A": "b"}, "pip": ["six"], "working_dir": "s3://b/x.zip", "py_modules": ["s3://b/y.zip"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD)
def test_good_sections_load_and_come_back_the_same(config: dict[str, Any]) -> None:
    config = {**ELSEWHERE, **config}
    loaded = RayConfig.load(config)
    assert loaded.work == "training"
    assert RayConfig.model_validate(loaded.model_dump(mode="json")) == loaded


BAD: list[tuple[dict[str, Any], str]] = [
    # what Ray Train has no more, what the node says, and where a key stands
    (scaled(trainer_resources={"CPU": 1}), "ray_train.scaling.trainer_resources: cannot be said here: Ray Train has none any more"),
    (train(failure={"fail_fast": True}), "ray_train.failure.fail_fast: cannot be said here: Ray Train has none any more"),
    (train(checkpoint={"checkpoint_frequency": 1}), "ray_train.checkpoint.checkpoint_frequency: cannot be said here: the function reports"),
    (train(checkpoint={"checkpoint_at_end": True}), "ray_train.checkpoint.checkpoint_at_end: cannot be said here: the function reports"),
    (train(name="x"), "ray_train.name: cannot be said here: the node says it"),
    (train(storage_path="/x"), "ray_train.storage_path: cannot be said here: checkpoints lie in the node's catalog"),
    (train(callbacks=[]), "ray_train.callbacks: cannot be said here: they take code"),
    (train(sync_config={}), "ray_train.sync_config: cannot be said here: it is Ray Tune's"),
    (train(verbose=1), "ray_train.verbose: cannot be said here: it is Ray Tune's"),
    (train(run_config={}), "ray_train.run_config: cannot be said here: its keys stand in ray_train itself"),
    (train(train_loop_config={}), "ray_train.train_loop_config: cannot be said here: the function's arguments are the node's op_kwargs"),
    (train(datasets={}), "ray_train.datasets: cannot be said here: it is data"),
    (train(torch_config={}), "ray_train.torch_config: cannot be said here: it is framework_config, with trainer: torch"),
    (train(num_workers=2), "ray_train.num_workers: cannot be said here: write it in ray_train.scaling.num_workers"),
    (train(max_failures=2), "ray_train.max_failures: cannot be said here: write it in ray_train.failure.max_failures"),
    (train(num_to_keep=2), "ray_train.num_to_keep: cannot be said here: write it in ray_train.checkpoint.num_to_keep"),
    (train(backend="gloo"), "ray_train.backend: cannot be said here: write it in ray_train.framework_config.backend"),
    (train(scalling={}), "ray_train.scalling: unknown key, did you mean 'scaling'?"),
    (train(scaling={}, scaling_config={}), "ray_train.scaling_config: scaling_config and scaling are the same: keep scaling"),
    # the framework
    (train(trainer="pytorch"), "ray_train.trainer: 'pytorch' is not allowed, did you mean 'torch'? allowed: data_parallel, torch,"),
    (torch(bakend="gloo"), "ray_train.framework_config.bakend: unknown key, did you mean 'backend'?"),
    (torch(backend="glo"), "ray_train.framework_config.backend: 'glo' is not allowed, did you mean 'gloo'?"),
    (torch(backend="cpux:gloo"), "ray_train.framework_config.backend: 'cpux' is not allowed, did you mean 'cpu'?"),
    (torch(init_method="file"), "ray_train.framework_config.init_method: 'file' is not allowed; allowed: env, tcp"),
    (torch(timeout_s=0), "ray_train.framework_config.timeout_s: 0 is below 1, the least allowed"),
    (torch(backend="nccl"), "ray_train.framework_config.backend: 'nccl' needs a GPU for each worker"),
    (torch(backend="tpu_dist"), "ray_train.framework_config.backend: 'tpu_dist' needs TPUs"),
    (torch({**GPU, "resources_per_worker": {"GPU": 0.5}}), "ray_train.scaling.resources_per_worker.GPU: 0.5: workers that share a GPU cannot speak over NCCL"),
    (train(framework_config={"backend": "gloo"}), "ray_train.framework_config: 'backend' is not taken: the trainer data_parallel sets no framework up"),
    (train(trainer="lightgbm", framework_config={"backend": "gloo"}), "ray_train.framework_config: 'backend' is not taken: the trainer lightgbm has no framework_config"),
    (train(trainer="xgboost", framework_config={"timeout_s": 1}), "ray_train.framework_config: timeout_s belongs to trainer: torch, and trainer is xgboost"),
    (train(trainer="xgboost", framework_config={"xgboost_communicator": "nccl"}), "xgboost_communicator: 'nccl' is not allowed; allowed: rabit"),
    (train(trainer="jax", framework_config={"use_gpu": True}), "ray_train.framework_config.use_gpu: True contradicts scaling.use_gpu: False"),
    ({**train(trainer="jax", scaling={"num_workers": 2}), **ELSEWHERE}, "ray_train.scaling.num_workers: 2 workers of the trainer jax would each train alone"),
    ({**train(trainer="jax", scaling={"use_gpu": True, "resources_per_worker": {"GPU": 0.5}}), **ELSEWHERE}, "ray_train.scaling.resources_per_worker.GPU: 0.5 is not whole: JAX takes whole GPUs"),
    (train(trainer="torch", framework_config=3), "ray_train.framework_config: 3 is not a mapping"),
    (train(trainer="lightgbm", scaling=TPU), "ray_train.scaling.use_tpu: the trainer lightgbm does not run on TPUs"),
    # the workers
    (scaled(num_workers=0), "ray_train.scaling.num_workers: 0 would run the function in the driver's own process"),
    (scaled(num_workers=-1), "ray_train.scaling.num_workers: -1 is below 1, the least allowed"),
    (scaled(num_workers=True), "ray_train.scaling.num_workers: True is a boolean, not an integer"),
    (scaled(num_workers=1.5), "ray_train.scaling.num_workers: 1.5 is not an integer"),
    (scaled(num_workers=[0, 2]), "ray_train.scaling.num_workers: 0 would run the function"),
    (scaled(num_workers=[1, 2, 3]), "ray_train.scaling.num_workers: [1, 2, 3] has 3 entries: the number of workers, or [least, most]"),
    (scaled(num_workers=[3, 2]), "ray_train.scaling.num_workers: 3 is above 2: [least, most]"),
    (scaled(elastic_resize_monitor_interval_s=5), "elastic_resize_monitor_interval_s: has no effect: the training is not elastic"),
    (scaled(use_gpu=True, use_tpu=True), "ray_train.scaling.use_tpu: cannot be beside use_gpu"),
    (scaled(use_gpu=True, resources_per_worker={"GPU": 0}), "ray_train.scaling.resources_per_worker.GPU: 0 contradicts use_gpu"),
    (scaled(resources_per_worker={"GPU": 1}), "ray_train.scaling.resources_per_worker.GPU: 1 contradicts use_gpu: false; say use_gpu: true"),
    (scaled(resources_per_worker={"TPU": 4}), "ray_train.scaling.resources_per_worker.TPU: 4 contradicts use_tpu: false"),
    (scaled(use_gpu=True, resources_per_worker={"GPU": 1.5}), "GPU: 1.5 is neither below 1 nor whole"),
    (scaled(resources_per_worker={"CPU": 0.00001}), "CPU: 1e-05 is below 0.0001, the least that Ray counts"),
    (scaled(resources_per_worker={"CPU": 0}), "ray_train.scaling.resources_per_worker: reserves nothing"),
    (scaled(resources_per_worker={"cpu": 1}), "ray_train.scaling.resources_per_worker.cpu: names no resource of Ray, did you mean 'CPU'?"),
    (scaled(resources_per_worker={"num_gpus": 1}), "names no resource of Ray, did you mean 'GPU'?"),
    (scaled(resources_per_worker={"Memory": 1}), "names no resource of Ray, did you mean 'memory'?"),
    (scaled(resources_per_worker={"object_store_memory": 1}), "reserves nothing in Ray any more"),
    (scaled(resources_per_worker={"node:1.2.3.4": 0.1}), "pins to one machine"),
    (scaled(placement_strategy="pack"), "ray_train.scaling.placement_strategy: 'pack' is not allowed, did you mean 'PACK'?"),
    (scaled(accelerator_type="accelerator_type:A100"), "is the resource: the type alone, 'A100'"),
    (scaled(label_selector={"a b": "c"}), "ray_train.scaling.label_selector: 'a b' is not the name of a label"),
    (scaled(label_selector={"zone": "in()"}), "zone: 'in()' is not a condition of a label; allowed: a value, !value, in(a, b) or !in(a, b)"),
    (scaled(label_selector={"spot": True}), "ray_train.scaling.label_selector: spot: True is not text: put it in quotes"),
    (scaled(label_selector=[{"a": "b"}], num_workers=2), "ray_train.scaling.label_selector: has 1 entries for 2 workers"),
    (scaled(topology="4x4"), "ray_train.scaling.topology: has no effect without use_tpu"),
    (scaled(**{**TPU, "topology": "4by4"}), "ray_train.scaling.topology: '4by4' is not a topology"),
    (scaled(**{**TPU, "topology": None}), "ray_train.scaling.topology: is missing: more than one worker on TPUs needs it"),
    (scaled(**{**TPU, "accelerator_type": "A100"}), "ray_train.scaling.accelerator_type: 'A100' is not a type of TPU; allowed: TPU-V2,"),
    (scaled(**{**TPU, "accelerator_type": "v5p"}), "'v5p' is not a type of TPU, did you mean 'TPU-V5P'?"),
    (scaled(**{**TPU, "num_workers": 3}), "ray_train.scaling.num_workers: 3 is not a multiple of 4, the workers of a slice 4x4 with 4 chips each"),
    (scaled(**{**TPU, "label_selector": {"a": "b"}}), "ray_train.scaling.label_selector: cannot be beside use_tpu"),
    (scaled(**{**TPU, "resources_per_worker": {"TPU": 3}}), "TPU: 3 is not allowed: a process gets 1, 2, 4 or 8 TPUs"),
    (train(worker_runtime_env={"working_dir": "src"}), "ray_train.worker_runtime_env.working_dir: 'src' is uploaded for the whole job: say it in ray_cluster.runtime_env.working_dir"),
    (train(worker_runtime_env={"py_modules": ["s3://b/m.zip", "/m"]}), "ray_train.worker_runtime_env.py_modules: '/m' is uploaded for the whole job"),
    (train(worker_runtime_env={"pip": "requirements.txt"}), "ray_train.worker_runtime_env.pip: 'requirements.txt' lies on this machine and is read for the whole job"),
    (train(worker_runtime_env={"excludes": ["*.bin"]}), "ray_train.worker_runtime_env.excludes: has no effect for workers alone"),
    (train(worker_runtime_env={"worker_process_setup_hook": "a.b"}), "worker_process_setup_hook: has no effect for workers alone"),
    (train(worker_runtime_env={"env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGINT"}}), "RAY_JOB_STOP_SIGNAL: is of the job, not of its workers"),
    ({**train(worker_runtime_env={"pip": ["six"]}), "ray_cluster": {"address": "local"}}, "ray_train.worker_runtime_env.pip: has no effect here"),
    # the metric, the checkpoints, the end
    (train(metric="loss"), "ray_train.mode: is missing: max or min"),
    (train(mode="max"), "ray_train.metric: is missing: mode is of it"),
    (train(metric="training_iteration", mode="max"), "ray_train.metric: 'training_iteration' is counted by the node itself"),
    (train(metric="loss", mode="min", checkpoint={"checkpoint_score_attribute": "loss"}), "ray_train.checkpoint.checkpoint_score_order: 'max' contradicts mode: min"),
    (train(metric="loss", mode="min", checkpoint={"checkpoint_score_attribute": "f1", "num_to_keep": 1}), "ray_train.checkpoint.checkpoint_score_attribute: 'f1' with num_to_keep would drop the best checkpoint by 'loss'"),
    (train(checkpoint={"checkpoint_score_order": "min"}), "checkpoint_score_order: has no effect without checkpoint_score_attribute"),
    (train(checkpoint={"num_to_keep": 0}), "ray_train.checkpoint.num_to_keep: 0 is below 1, the least allowed"),
    (train(stop={"loss": "low"}), "ray_train.stop.loss: 'low' is not a number"),
    (train(time_budget_s=0), "ray_train.time_budget_s: 0 is not above 0"),
    (train(report_timeout_s=-1), "ray_train.report_timeout_s: -1 is not above 0"),
    (train(failure={"max_failures": -2}), "ray_train.failure.max_failures: -2 is below -1, the least allowed"),
    (train(logging={"log_level": "LOUD"}), "ray_train.logging.log_level: 'LOUD' is not allowed; allowed: DEBUG, INFO,"),
    # the data
    (train(data={"train": {"shard": False}}), "ray_train.data.train.op_kwarg: is missing"),
    (train(data={"train": {"op_kwarg": "a", "uri": "/b"}}), "ray_train.data.train.uri: stands beside op_kwarg: keep one of them"),
    (train(data={"train": "some/rows.parquet"}), "ray_train.data.train.uri: 'some/rows.parquet' is neither an absolute path"),
    (train(data={"train": {"op_kwargs": "a"}}), "ray_train.data.train.op_kwargs: unknown key, did you mean 'op_kwarg'?"),
    # between the sections
    ({**scaled(), "default_resources": {"num_gpus": 1}}, "default_resources.num_gpus: 1 contradicts ray_train.scaling.use_gpu: false"),
    ({**scaled(use_gpu=True), "default_resources": {"num_gpus": 0}}, "default_resources.num_gpus: 0 contradicts ray_train.scaling.use_gpu"),
    ({**scaled(num_workers=2, placement_strategy="STRICT_SPREAD"), "ray_cluster": {"address": "local"}}, "STRICT_SPREAD puts each of 2 workers on its own machine, and the embedded Ray is one"),
    ({**scaled(resources_per_worker={"licence": 1}), "ray_cluster": {"address": "local"}}, "ray_train.scaling.resources_per_worker.licence: is nowhere"),
    ({**scaled(label_selector={"zone": "a"}), "ray_cluster": {"address": "local"}}, "ray_train.scaling.label_selector.zone: 'a' is nowhere"),
    ({"ray_tune": {**TUNE, "resources": {"resources": {"licence": 1}}}, "ray_cluster": {"address": "local"}}, "ray_tune.resources.resources.licence: is nowhere"),
    ({"default_resources": {"label_selector": {"zone": "a"}}, "ray_cluster": {"address": "local"}}, "default_resources.label_selector.zone: 'a' is nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_refused_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RayConfig.load(config, source="x.yaml")
    assert message in str(raised.value)
    assert "function-" not in str(raised.value), "words of the library that validates"


def test_the_schema_takes_what_loads() -> None:
    schema = json_schema()
    for name, config in GOOD.items():
        if name in ("torch", "elastic", "data", "rays own names"):  # text that is a number, a switch in words
            continue
        jsonschema.validate(config, schema)


# --- against Ray itself


def test_framework_configs_have_rays_keys_and_defaults() -> None:
    from ray.train.lightgbm import LightGBMConfig
    from ray.train.v2.jax.config import JaxConfig

    theirs: dict[str, Any] = {"lightgbm": LightGBMConfig, "jax": JaxConfig}
    torch_config = pytest.importorskip("ray.train.torch.config")
    theirs["torch"] = torch_config.TorchConfig
    if __import__("importlib").util.find_spec("xgboost"):
        from ray.train.xgboost import XGBoostConfig

        theirs["xgboost"] = XGBoostConfig
    for trainer, config in theirs.items():
        fields = {field.name: field.default for field in dataclasses.fields(config)}
        ours = FRAMEWORKS[trainer].model_fields
        assert set(ours) == set(fields), trainer
        assert FRAMEWORKS[trainer].ray_class == config.__name__
        if trainer != "jax":  # whose defaults are those of the scaling
            fields |= {"timeout_s": None} if trainer == "torch" else {}  # that of the reports
            assert {name: field.default for name, field in ours.items()} == fields


def test_every_key_of_rays_run_config_and_trainers_is_known() -> None:
    from ray.train import RunConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    known = {*RayTrain.model_fields, *RayTrain.not_in_yaml, *RayTrain.renamed}
    assert set(inspect.signature(RunConfig).parameters) <= known
    assert set(inspect.signature(DataParallelTrainer).parameters) <= known | {"self"}


def any_scaling(source: random.Random) -> dict[str, Any]:
    least = source.randint(1, 6)
    scaling: dict[str, Any] = {"num_workers": source.choice((least, [least, source.randint(1, 8)]))}
    if source.random() < 0.3:
        scaling["use_gpu"] = True
    if source.random() < 0.4:
        scaling["use_tpu"] = True
        scaling["topology"] = source.choice(("4x4", "2x2", "2x2x2", "1x1", "2x4", None))
        scaling["accelerator_type"] = source.choice(("TPU-V6E", "TPU-V4", "v5p", "A100", None))
    if source.random() < 0.4:
        amounts = {"CPU": (0, 1, 2), "GPU": (0, 0.5, 1), "TPU": (0, 4, 1), "memory": (1e9,), "licence": (1,)}
        names = source.sample(list(amounts), source.randint(1, 3))
        scaling["resources_per_worker"] = {name: source.choice(amounts[name]) for name in names}
    if source.random() < 0.2:
        scaling["label_selector"] = source.choice(({"zone": "a"}, [{"zone": "a"}] * source.randint(1, 4)))
    return {key: value for key, value in scaling.items() if value is not None}


def test_what_the_scaling_takes_ray_takes_with_the_same_worker() -> None:
    """What is refused here and not there is told for another reason: it reserves nothing, has no effect, is changed."""
    from ray.train import ScalingConfig

    source, taken = random.Random(7), 0
    for _ in range(3000):
        given = any_scaling(source)
        words = {
            **given,
            "num_workers": tuple(given["num_workers"])
            if isinstance(given["num_workers"], list)
            else given["num_workers"],
        }
        try:
            ours: Scaling | None = Scaling.model_validate(given)
        except ValueError:
            ours = None
        try:
            theirs: Any = ScalingConfig(**words)
        except ValueError:
            theirs = None
        if ours is None:
            reserves = theirs is not None and any((theirs.resources_per_worker or {"CPU": 1}).values())
            idle = given.get("topology") and not given.get("use_tpu")
            foreign = given.get("use_tpu") and not given.get("accelerator_type", "TPU-").startswith("TPU-")
            none = given.get("use_gpu") and given.get("resources_per_worker", {}).get("GPU") == 0  # Ray makes it 1
            assert theirs is None or not reserves or idle or foreign or none, repr(given)
            continue
        # What the node gives to Ray: it says all that a worker reserves, where Ray would miss the TPUs.
        taken += 1
        whole = ScalingConfig(**{**words, "resources_per_worker": ours.worker(Resources())})
        theirs = theirs or whole
        worker = ours.worker(Resources())
        if ours.use_tpu:  # whose type Ray looks for where the workers' resources are said only
            worker = {name: worker[name] for name in theirs._resources_per_worker_not_none}
        assert worker == theirs._resources_per_worker_not_none, given
        assert ours.labels(Resources()) == theirs._label_selector_per_worker(theirs.max_workers), given
    assert taken > 500


def test_tpus_are_counted_as_ray_counts_them() -> None:
    from ray._private.accelerators.tpu import VALID_TPU_TYPES
    from ray._private.accelerators.tpu import get_chips_per_host as theirs
    from ray.util.tpu import get_tpu_version_from_type

    assert TPU_VERSIONS == VALID_TPU_TYPES
    for version in TPU_VERSIONS:
        for topology in ("1x1", "2x2", "2x4", "4x4", "2x2x2", "8x16"):
            assert chips_per_host(topology, version) == theirs(topology, version)
        for spelling in (version, version.upper(), f"TPU-{version.upper()}"):
            assert tpu_version(spelling) == get_tpu_version_from_type(spelling)


@pytest.mark.parametrize(
    "labels",
    [
        {"zone": "a"}, {"zone": "!a"}, {"zone": "in(a,b)"}, {"zone": "!in(a, b)"}, {"zone": ""}, {"ray.io/market-type": "spot"},
        {"a b": "c"}, {"-a": "c"}, {"a": "b c"}, {"a": "in()"}, {"a": "!!b"}, {"a": "in(a;b)"}, {"a/b/c": "d"}, {"x" * 64: "a"},
        {"a": "x" * 64}, {"sub..domain/a": "b"}, {"a.b/c": "d"}, {"": "a"},
    ],
    ids=str,
)  # fmt: skip
def test_labels_are_those_that_ray_takes(labels: dict[str, str]) -> None:
    from ray._private.label_utils import validate_label_selector

    refused = validate_label_selector(labels) is not None
    try:
        Resources.model_validate({"label_selector": labels})
    except ValueError:
        assert refused, labels
    else:
        assert not refused, labels


def test_a_space_in_a_list_of_labels_is_no_part_of_the_value() -> None:
    """Ray takes it for one, and waits without end for a node with such a label."""
    resources = Resources.model_validate({"label_selector": {"zone": "in(a, b)", "disk": "!in(x, y)"}})
    assert resources.label_selector == {"zone": "in(a,b)", "disk": "!in(x,y)"}
