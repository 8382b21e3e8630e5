"""How the workers of a training find each other: `ray_train.trainer` and its `framework_config`, under Ray's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, TypeAdapter, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from airflow_provider_raynode.config._later import dumped
from airflow_provider_raynode.config._section import Problem, Section, one_of
from airflow_provider_raynode.config._values import PositiveInteger, Switch, Text, shown

Trainer = Literal["data_parallel", "torch", "xgboost", "lightgbm", "jax", "tensorflow"]

# What torch.distributed and Ray register.
_BACKENDS = ("gloo", "nccl", "mpi", "ucc", "xccl", "hccl", "tpu_dist")
_DEVICES = ("cpu", "cuda", "xpu", "hpu", "xla", "npu")


class Framework(Section):
    """The `framework_config` of one trainer."""

    ray_class: ClassVar[str] = ""
    """The class of Ray that takes these keys."""


class DataParallelConfig(Framework):
    """The trainer `data_parallel` sets nothing up: the function does what its framework needs."""

    ray_class = "BackendConfig"


class TorchConfig(Framework):
    """The process group of torch.distributed: Ray's TorchConfig."""

    ray_class = "TorchConfig"

    backend: Text | None = Field(
        default=None,
        description=f"{', '.join(_BACKENDS)}, or one for each kind of device, e.g. cpu:gloo,cuda:nccl; left out: nccl "
        "with GPUs, tpu_dist with TPUs, else gloo",
    )
    init_method: Literal["env", "tcp"] = Field(
        default="env", description="how the workers learn the address of the first: by environment variables or a URL"
    )
    timeout_s: PositiveInteger | None = Field(
        default=None,
        description="seconds after which an operation of the process group fails; left out: "
        "ray_train.report_timeout_s, and without one 1800",
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a backend that nobody knows."""
        for device, backend in self.backends():
            if device is not None and device not in _DEVICES:
                yield ("backend",), one_of(device, _DEVICES)
            if backend not in _BACKENDS:
                yield ("backend",), one_of(backend, _BACKENDS)

    def backends(self) -> list[tuple[str | None, str]]:
        """Return the backends that are named, each with its kind of device where one is."""
        if self.backend is None:
            return []
        parts = (part.strip().rpartition(":") for part in self.backend.split(","))
        return [(device if colon else None, backend) for device, colon, backend in parts]


class XGBoostConfig(Framework):
    """The communicator of XGBoost: Ray's XGBoostConfig."""

    ray_class = "XGBoostConfig"

    xgboost_communicator: Literal["rabit"] = Field(default="rabit", description="how the workers speak to each other")


class LightGBMConfig(Framework):
    """LightGBM's network is set up by Ray alone; its LightGBMConfig has no keys."""

    ray_class = "LightGBMConfig"


class JaxConfig(Framework):
    """The distributed runtime of JAX: Ray's JaxConfig. Both keys come from `scaling`; here they can only agree."""

    ray_class = "JaxConfig"

    use_tpu: Switch | None = Field(default=None, description="whether JAX runs on TPUs; left out: scaling.use_tpu")
    use_gpu: Switch | None = Field(default=None, description="whether JAX runs on GPUs; left out: scaling.use_gpu")


class TensorflowConfig(Framework):
    """TF_CONFIG is set up by Ray alone; its TensorflowConfig has no keys."""

    ray_class = "TensorflowConfig"


FRAMEWORKS: dict[str, type[Framework]] = {
    "data_parallel": DataParallelConfig,
    "torch": TorchConfig,
    "xgboost": XGBoostConfig,
    "lightgbm": LightGBMConfig,
    "jax": JaxConfig,
    "tensorflow": TensorflowConfig,
}
"""The `framework_config` of each trainer."""


class ByTrainer:
    """Annotation of `framework_config`: its keys are those of the field `trainer`, which stands before it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validated, serialization=core_schema.plain_serializer_function_ser_schema(dumped, info_arg=True)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(core_schema.union_schema([TypeAdapter(each).core_schema for each in FRAMEWORKS.values()]))

    def _validated(self, value: Any, info: ValidationInfo) -> Framework | None:
        trainer = info.data.get("trainer")
        if value is None or trainer is None:  # a trainer that is refused says nothing of its keys
            return None
        kind = FRAMEWORKS[trainer]
        if isinstance(value, Mapping):
            foreign = [key for key in value if key not in kind.model_fields]
            owner = next((name for name, each in FRAMEWORKS.items() if set(foreign) & set(each.model_fields)), None)
            if foreign and not kind.model_fields:
                theirs = f"; {', '.join(map(str, foreign))} belongs to trainer: {owner}" if owner else ""
                raise ValueError(f"{shown(foreign[0])} is not taken: {_without_keys(trainer)}{theirs}")
            if foreign and owner is not None and owner != trainer:
                raise ValueError(
                    f"{', '.join(map(str, foreign))} belongs to trainer: {owner}, and trainer is {trainer}"
                )
        return kind.model_validate(value)


def _without_keys(trainer: str) -> str:
    if trainer == "data_parallel":
        return "the trainer data_parallel sets no framework up, so it has no framework_config"
    return f"the trainer {trainer} has no framework_config, Ray sets it up alone"
