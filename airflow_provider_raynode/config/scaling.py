"""The workers of a training: Ray's ScalingConfig."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.config._section import Problem, Section, did_you_mean, folded
from airflow_provider_raynode.config._values import NonNegativeNumber, PositiveNumber, Switch, Text, as_integer, shown
from airflow_provider_raynode.config.resources import (
    AcceleratorType,
    LabelSelectors,
    Resources,
    wrong_name,
    wrong_quantity,
)

Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]

TPU_VERSIONS = ("v2", "v3", "v4", "v5p", "v5litepod", "v6e", "v7x")
_EIGHT_CHIPS = ("v5litepod", "v6e")
_SINGLE_HOST = ("1x1", "2x2", "2x4")
_CHIPS_PER_HOST = 4


def _workers(value: Any) -> Any:
    """Return a number of workers, or the pair of the least and the most.

    :raises ValueError: anything else.
    """
    if isinstance(value, list | tuple):
        if len(value) != 2:
            raise ValueError(f"{shown(value)} has {len(value)} entries: the number of workers, or [least, most]")
        return tuple(_count(each) for each in value)
    return _count(value)


def _count(value: Any) -> int:
    count = as_integer(value)
    if count == 0:
        raise ValueError("0 would run the function in the driver's own process, without workers: 1 is the least")
    if count < 0:
        raise ValueError(f"{count} is below 1, the least allowed")
    return count


Count = Annotated[int, Field(ge=1)]
Workers = Annotated[Count | tuple[Count, Count], BeforeValidator(_workers)]
"""A number of workers, or [least, most] of an elastic training."""


class Scaling(Section):
    """The workers of a training: Ray's ScalingConfig."""

    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "trainer_resources": "Ray Train has none any more, its coordinating process reserves nothing: "
        "resources_per_worker; beside ray_tune a trial's own process reserves ray_tune.resources",
    }

    num_workers: Workers = Field(default=1, description="number of workers, or [least, most] of an elastic training")
    use_gpu: Switch = Field(default=False, description="whether each worker gets a GPU")
    resources_per_worker: dict[Text, NonNegativeNumber] | None = Field(
        default=None,
        description="what each worker reserves, in Ray's words: CPU, GPU and TPU in pieces, memory in bytes, custom "
        "resources by name; what it leaves out is that of default_resources, and without these 1 CPU, and with "
        "use_gpu no CPU and 1 GPU",
    )
    placement_strategy: Strategy = Field(
        default="PACK",
        description="how workers are placed on nodes: on few, on many, STRICT_PACK on one only, STRICT_SPREAD each on "
        "its own",
    )
    accelerator_type: AcceleratorType | None = Field(
        default=None,
        description="type of the accelerator that a worker's node must have, in Ray's spelling, e.g. A100; left out: "
        "that of default_resources",
    )
    label_selector: LabelSelectors | None = Field(
        default=None,
        description="labels that a worker's node must have, or a list with those of each worker: a value, `!value`, "
        "`in(a, b)` or `!in(a, b)` by the label's name; left out: those of default_resources",
    )
    use_tpu: Switch = Field(default=False, description="whether each worker gets TPUs")
    topology: Text | None = Field(default=None, description="topology of the TPU slice, e.g. 2x2x2")
    elastic_resize_monitor_interval_s: PositiveNumber = Field(
        default=60.0, description="seconds between two looks for more workers in an elastic training"
    )

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.num_workers if isinstance(self.num_workers, tuple) else (self.num_workers, self.num_workers)

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change while the training runs."""
        return isinstance(self.num_workers, tuple)

    def worker(self, default: Resources) -> dict[str, float]:
        """Return what one worker reserves, as a bundle of a placement group.

        :param default: counts for what is left out here.
        """
        own = self.resources_per_worker or {}
        given = Resources.model_construct(accelerator_type=self.accelerator_type).over(default)
        accelerated = self.use_gpu or self.use_tpu
        # Ray's own default: a worker with an accelerator asks for no CPU, one that names other resources neither.
        bundle = given.bundle(num_cpus=0.0 if accelerated or own else 1.0) | own
        if self.use_gpu:
            bundle.setdefault("GPU", 1.0)
        if self.use_tpu:
            bundle |= self._tpus(own)
        return {name: float(amount) for name, amount in bundle.items() if amount}

    def labels(self, default: Resources) -> list[dict[str, str]] | None:
        """Return the labels of each of the most workers' nodes, None where none are asked for.

        :param default: counts where none are given here.
        """
        given = self.label_selector if self.label_selector is not None else default.label_selector
        if not given:
            return None
        return [dict(each) for each in (given if isinstance(given, list) else [given] * self.bounds[1])]

    def _tpus(self, own: Mapping[str, float]) -> dict[str, float]:
        if "TPU" in own:
            return {}
        version = tpu_version(self.accelerator_type or "")
        if self.topology is None or version is None:
            return {"TPU": 1.0}
        return {"TPU": float(chips_per_host(self.topology, version)), **({} if "CPU" in own else {"CPU": 1.0})}

    def problems(self) -> Iterator[Problem]:
        """Yield what contradicts itself."""
        least, most = self.bounds
        if least > most:
            yield ("num_workers",), f"{least} is above {most}: [least, most]"
        if "elastic_resize_monitor_interval_s" in self.model_fields_set and not self.elastic:
            default = type(self).model_fields["elastic_resize_monitor_interval_s"].default
            if self.elastic_resize_monitor_interval_s != default:
                yield (
                    ("elastic_resize_monitor_interval_s",),
                    "has no effect: the training is not elastic; num_workers: [least, most] makes it so",
                )
        if self.use_gpu and self.use_tpu:
            yield ("use_tpu",), "cannot be beside use_gpu"
        if isinstance(self.label_selector, list) and len(self.label_selector) != most:
            yield (
                ("label_selector",),
                f"has {len(self.label_selector)} entries for {most} workers: one for each of the most, or a mapping "
                "for all",
            )
        yield from self._resource_problems()
        yield from self._tpu_problems()

    def _resource_problems(self) -> Iterator[Problem]:
        resources = self.resources_per_worker
        if resources is None:
            return
        where = "resources_per_worker"
        for name, amount in resources.items():
            wrong = None if name in _RAYS else _misspelled(name) or wrong_name(name)
            wrong = wrong or (wrong_quantity(name, amount) if amount else None)
            if wrong:
                yield (where, name), wrong
        for key, name, used in (("use_gpu", "GPU", self.use_gpu), ("use_tpu", "TPU", self.use_tpu)):
            if used and resources.get(name) == 0:
                yield (where, name), f"0 contradicts {key}"
            if not used and resources.get(name, 0) > 0:
                yield (where, name), f"{resources[name]:g} contradicts {key}: false; say {key}: true"
        accelerated = self.use_gpu or self.use_tpu or self.accelerator_type is not None
        if not accelerated and resources and not any(resources.values()):
            yield (where,), "reserves nothing: Ray places a worker by what it reserves, a little of one will do"

    def _tpu_problems(self) -> Iterator[Problem]:
        if self.topology is not None and not self.use_tpu:
            yield ("topology",), "has no effect without use_tpu"
        if self.topology is not None and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", self.topology.strip().lower()):
            yield ("topology",), f"{self.topology!r} is not a topology: numbers of chips, e.g. 4x4 or 2x2x2"
            return
        if not self.use_tpu:
            return
        _, most = self.bounds
        if most > 1:
            for key in ("topology", "accelerator_type"):
                if getattr(self, key) is None:
                    yield (key,), "is missing: more than one worker on TPUs needs it"
            if self.label_selector:
                yield ("label_selector",), "cannot be beside use_tpu: Ray reserves a slice of TPUs by labels of its own"
        version = tpu_version(self.accelerator_type) if self.accelerator_type is not None else None
        types = [f"TPU-{each.upper()}" for each in TPU_VERSIONS]  # as Ray's nodes call themselves
        if self.accelerator_type is not None and self.accelerator_type not in types:
            hint = f", did you mean 'TPU-{version.upper()}'?" if version is not None else ";"
            yield (
                ("accelerator_type",),
                f"{self.accelerator_type!r} is not a type of TPU{hint} allowed: {', '.join(types)}",
            )
        elif self.topology is not None and version is not None:
            yield from self._slice_problems(version)

    def _slice_problems(self, version: str) -> Iterator[Problem]:
        assert self.topology is not None
        chips = _chips(self.topology)
        each = (self.resources_per_worker or {}).get("TPU") or chips_per_host(self.topology, version)
        if chips % each:
            yield (
                ("resources_per_worker", "TPU"),
                f"{each:g} does not divide the {chips} chips of a slice {self.topology}",
            )
            return
        workers = int(chips // each)
        for count in dict.fromkeys(self.bounds):
            if count % workers:
                yield (
                    ("num_workers",),
                    f"{count} is not a multiple of {workers}, the workers of a slice {self.topology} with {each:g} "
                    "chips each",
                )


_RAYS = ("CPU", "GPU", "TPU", "memory")
_CLI = {"numcpus": "CPU", "numgpus": "GPU", "cpus": "CPU", "gpus": "GPU", "tpus": "TPU", "numtpus": "TPU"}


def _misspelled(name: str) -> str | None:
    """Return the message for a name that is most likely one of Ray's own in another spelling, or None."""
    known = {folded(each): each for each in _RAYS} | _CLI
    if folded(name) in known:
        return f"names no resource of Ray{did_you_mean(known[folded(name)], _RAYS)}"
    return None


def tpu_version(accelerator_type: str) -> str | None:
    """Return the version that a type of TPU names, as Ray reads it, or None."""
    word = accelerator_type.lower()
    if word.startswith("tpu-"):
        word = word.removeprefix("tpu-")
    elif word.startswith("tpu"):
        word = f"v{word.removeprefix('tpu')}"
    return word if word in TPU_VERSIONS else None


def chips_per_host(topology: str, version: str) -> int:
    """Return the chips of one machine of a slice, as Ray counts them."""
    if version in _EIGHT_CHIPS and topology.strip().lower() in _SINGLE_HOST:
        return _chips(topology)
    return _CHIPS_PER_HOST


def _chips(topology: str) -> int:
    chips = 1
    for part in topology.strip().lower().split("x"):
        chips *= int(part)
    return chips
