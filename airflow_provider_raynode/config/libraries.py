"""The libraries that a search needs beside Ray, found without importing them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from airflow_provider_raynode.config.schedulers import PB2, ResourceChangingScheduler
from airflow_provider_raynode.config.tune import RayTune


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


def missing_libraries(tune: RayTune) -> list[MissingLibrary]:
    """Return the libraries of the search algorithm and the scheduler that are not installed in this Python."""
    needed: list[tuple[str, str, str, str]] = []
    if tune.search_algorithm is not None:
        for module, requirement in tune.search_algorithm.libraries.items():
            needed.append(("ray_tune.search_algorithm.type", tune.search_algorithm.type, module, requirement))
    scheduler = tune.scheduler
    if isinstance(scheduler, ResourceChangingScheduler):
        scheduler = scheduler.base_scheduler
    if isinstance(scheduler, PB2):
        needed.append(("ray_tune.scheduler.type", scheduler.type, "sklearn", "scikit-learn>=1.5"))
    return [MissingLibrary(*each) for each in needed if find_spec(each[2]) is None]
