"""The libraries that a search or a training needs beside Ray, found without importing them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from airflow_provider_raynode.config._kinds import Kind
from airflow_provider_raynode.config.tune import RayTune

# The class of Ray behind each trainer, and the library that it imports on every worker.
_TRAINERS = {
    "torch": ("TorchTrainer", "torch"),
    "xgboost": ("XGBoostTrainer", "xgboost"),
    "lightgbm": ("LightGBMTrainer", "lightgbm"),
    "jax": ("JaxTrainer", "jax"),
    "tensorflow": ("TensorflowTrainer", "tensorflow"),
}


@dataclass(frozen=True)
class MissingLibrary:
    """A library that cannot be imported here."""

    path: str
    """Where in the config it is asked for."""
    user: str
    """The class of Ray that needs it."""
    module: str
    """What Python would import."""
    requirement: str
    """What pip would install."""

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.user} needs the library {self.module}, which is not installed in this Python: "
            f"pip install {self.requirement!r}"
        )

    def on_cluster(self, place: str) -> str:
        """Return the message where the job runs elsewhere than the config is read.

        :param place: the machine, for the message.
        """
        return (
            f"{self.path}: {self.user} needs the library {self.module}, which is not installed where the job runs "
            f"({place}), whatever is installed on Airflow's machines: install {self.requirement!r} in the cluster's "
            f"Python, or let the job bring it: ray_cluster.runtime_env: {{pip: [{self.requirement!r}]}}"
        )


def missing_libraries(tune: RayTune) -> list[MissingLibrary]:
    """Return the libraries of the search algorithm and the scheduler that are not installed in this Python."""
    parts: list[tuple[str, Kind | None]] = [
        ("ray_tune.search_algorithm", tune.search_algorithm),
        ("ray_tune.search_algorithm.sampler", getattr(tune.search_algorithm, "sampler", None)),
        ("ray_tune.scheduler", tune.scheduler),
        ("ray_tune.scheduler.base_scheduler", getattr(tune.scheduler, "base_scheduler", None)),
    ]
    return [
        MissingLibrary(f"{path}.type", part.type, module, requirement)
        for path, part in parts
        if part is not None
        for module, requirement in part.libraries.items()
        if find_spec(module) is None
    ]


def missing_framework(trainer: str) -> list[MissingLibrary]:
    """Return the library of `ray_train.trainer`, where it is not installed in this Python."""
    if trainer not in _TRAINERS:
        return []
    user, module = _TRAINERS[trainer]
    return [] if find_spec(module) else [MissingLibrary("ray_train.trainer", user, module, module)]
