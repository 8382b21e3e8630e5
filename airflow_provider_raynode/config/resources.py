"""What one process of the author's function reserves on the cluster: `default_resources`, and what a section says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from airflow_provider_raynode.config._section import Problem, Section, folded
from airflow_provider_raynode.config._values import (
    NonNegativeNumber,
    PositiveInteger,
    PositiveNumber,
    Text,
    shown,
)

# Ray counts resources in these units, and what is below one is none.
LEAST = 0.0001
# Of Ray's resources these are counted piece by piece: a fraction shares one, more than one is whole.
_PIECES = ("GPU", "NPU")
_UNSHARED = ("HPU", "neuron_cores", "RBLN", "MBLT", "TTNPU", "FURIOSA")
_TPUS = (1, 2, 4, 8)
# How an accelerator's type is asked for, in the quantity that Ray itself asks for.
ACCELERATOR_TYPE = "accelerator_type:"
ACCELERATOR_SHARE = 0.001

_WORD = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_PREFIX = re.compile(rf"({_WORD}?(\.{_WORD}?)*)")
_CONDITION = re.compile(rf"!?(?:in)?\({_WORD}(?:, ?{_WORD})*\)|!?{_WORD}")
_LONGEST_PREFIX = 253


def _labels(value: Any) -> Any:
    """Return a mapping of labels; a number or a boolean that YAML made of a value is refused with the remedy."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is not a mapping of a label to the value it must have (key: value)")
    for key, condition in value.items():
        if not isinstance(key, str) or not _is_label(key):
            raise ValueError(
                f"{shown(key)} is not the name of a label: letters, digits, -, _ and . (63 at most, the ends letters "
                "or digits), with a DNS name and / before it where it has a prefix, e.g. ray.io/market-type"
            )
        if not isinstance(condition, str):
            raise ValueError(f"{key}: {shown(condition)} is not text: put it in quotes")
        if condition and not _CONDITION.fullmatch(condition):
            raise ValueError(
                f"{key}: {shown(condition)} is not a condition of a label; allowed: a value, !value, in(a, b) or "
                "!in(a, b)"
            )
    # Ray takes a space behind a comma for a part of the value, and such a node is nowhere.
    return {key: condition.replace(" ", "") for key, condition in value.items()}


def _is_label(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > _LONGEST_PREFIX or not _PREFIX.fullmatch(prefix)):
        return False
    return re.fullmatch(_WORD, name) is not None


def _accelerator(value: str) -> str:
    if value.startswith(ACCELERATOR_TYPE):
        raise ValueError(f"{shown(value)} is the resource: the type alone, {value.removeprefix(ACCELERATOR_TYPE)!r}")
    if value != value.strip():
        raise ValueError(f"{shown(value)} begins or ends with a space")
    return value


LabelSelector = Annotated[dict[str, str], BeforeValidator(_labels)]
"""Labels that a node must have, as Ray writes them: `value`, `!value`, `in(a, b)`, `!in(a, b)` by the label's name."""
LabelSelectors = Annotated[
    dict[str, str] | list[dict[str, str]],
    BeforeValidator(lambda value: [_labels(each) for each in value] if isinstance(value, list) else _labels(value)),
]
"""The same, or a list of them: one for each worker."""
AcceleratorType = Annotated[Text, AfterValidator(_accelerator)]


class Resources(Section):
    """What one process of the function reserves: a trial, a worker of a training, a call of a plain function or a map.

    As many run at a time as fit. What a section says of its own (`ray_tune.resources`,
    `ray_train.scaling.resources_per_worker`, `ray_map.resources`) counts before this, key by key.
    """

    num_cpus: PositiveNumber | None = Field(
        default=None,
        description="CPUs, fractions allowed; left out: 1, for a worker of a training with use_gpu 0",
    )
    num_gpus: NonNegativeNumber | None = Field(
        default=None, description="GPUs; a fraction shares one, above 1 only whole ones; left out: 0"
    )
    memory: PositiveInteger | None = Field(
        default=None,
        description="memory that Ray reserves, in bytes; a process that takes more is not stopped by that",
    )
    resources: dict[Text, PositiveNumber] = Field(
        default_factory=dict, description="custom resources of the cluster and their quantities, by name"
    )
    accelerator_type: AcceleratorType | None = Field(
        default=None, description="type of the accelerator that its node must have, in Ray's spelling, e.g. A100"
    )
    label_selector: LabelSelector | None = Field(
        default=None,
        description="labels that its node must have: a value, `!value`, `in(a, b)` or `!in(a, b)` by the label's name",
    )

    def problems(self) -> Iterator[Problem]:
        """Yield a quantity that Ray refuses."""
        for key, name, amount in (("num_cpus", "CPU", self.num_cpus), ("num_gpus", "GPU", self.num_gpus)):
            if amount and (wrong := wrong_quantity(name, amount)):
                yield (key,), wrong
        own = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
        for name, amount in self.resources.items():
            if name in own:
                yield ("resources", name), f"is Ray's own resource: say it in {own[name]}"
            elif wrong := wrong_name(name) or wrong_quantity(name, amount):
                yield ("resources", name), wrong

    def over(self, others: Resources) -> Resources:
        """Return these with `others` for what is left out here; custom resources by name."""
        given = {name: getattr(self, name) for name in type(self).model_fields if getattr(self, name) is not None}
        merged = {**_given(others), **given, "resources": {**others.resources, **self.resources}}
        return Resources.model_construct(**merged)

    def bundle(self, *, num_cpus: float = 1.0) -> dict[str, float]:
        """Return them in Ray's words, as a bundle of a placement group; what is 0 is not in it.

        :param num_cpus: the CPUs where none are given.
        """
        words: dict[str, float | None] = {
            "CPU": num_cpus if self.num_cpus is None else self.num_cpus,
            "GPU": self.num_gpus,
            "memory": self.memory,
            **self.resources,
        }
        if self.accelerator_type is not None:
            words[f"{ACCELERATOR_TYPE}{self.accelerator_type}"] = ACCELERATOR_SHARE
        return {name: float(amount) for name, amount in words.items() if amount}

    def options(self) -> dict[str, Any]:
        """Return them as the options of a task or an actor of Ray."""
        options: dict[str, Any] = {
            "num_cpus": 1.0 if self.num_cpus is None else self.num_cpus,
            "num_gpus": self.num_gpus,
            "memory": self.memory,
            "resources": self.resources,
            "accelerator_type": self.accelerator_type,
            "label_selector": self.label_selector,
        }
        return {name: value for name, value in options.items() if value}


def _given(resources: Resources) -> dict[str, Any]:
    return {name: value for name, value in resources if value is not None}


def wrong_quantity(name: str, amount: float) -> str | None:
    """Return what is wrong with a quantity of a resource above 0, or None."""
    if amount < LEAST:
        return f"{amount:g} is below {LEAST:g}, the least that Ray counts"
    if name == "TPU" and amount not in _TPUS:
        return f"{amount:g} is not allowed: a process gets {', '.join(map(str, _TPUS[:-1]))} or {_TPUS[-1]} TPUs"
    if name in _UNSHARED and amount != int(amount):
        return f"{amount:g} is not whole: {name} cannot be shared"
    if name in _PIECES and amount > 1 and amount != int(amount):
        return f"{amount:g} is neither below 1 nor whole: Ray shares one {name} or gives whole ones"
    return None


def wrong_name(name: str) -> str | None:
    """Return what is wrong with the name of a custom resource, or None."""
    if name == "object_store_memory":
        return "reserves nothing in Ray any more: leave it out, objects that do not fit are spilled to disk"
    if name.startswith("node:"):
        return f"{shown(name)} pins to one machine by an address that a new cluster does not have: use label_selector"
    near = {"cpu": "num_cpus", "cpus": "num_cpus", "numcpus": "num_cpus", "gpu": "num_gpus", "gpus": "num_gpus"}
    near |= {"numgpus": "num_gpus", "memory": "memory"}
    if folded(name) in near:
        return f"names no resource of Ray, did you mean {near[folded(name)]}?"
    return None
