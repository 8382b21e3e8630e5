"""RayConfig: the whole config file."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from airflow_provider_raynode.config._later import Later
from airflow_provider_raynode.config._section import Problem, Section, as_validation_error, path_of, problems_of
from airflow_provider_raynode.config._values import EmptyIsDefault
from airflow_provider_raynode.config._warnings import warnings_of
from airflow_provider_raynode.config._yaml import plain, read_yaml
from airflow_provider_raynode.config.cluster import CatalogSection, RayCluster
from airflow_provider_raynode.config.libraries import MissingLibrary, missing_framework, missing_libraries
from airflow_provider_raynode.config.paths import with_absolute_paths
from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.exceptions import ConfigError, ConfigWarning

if TYPE_CHECKING:
    from airflow_provider_raynode.config.ray_map import RayMap
    from airflow_provider_raynode.config.train import RayTrain, TrainCheckpoint
else:
    RayMap = Annotated[Section, Later("airflow_provider_raynode.config.ray_map:RayMap")]
    RayTrain = Annotated[Section, Later("airflow_provider_raynode.config.train:RayTrain")]


# What a config asks for.
WorkKind = Literal["search", "training", "function", "map"]


class RayConfig(Section):
    """What a Ray node runs, and on what: the YAML file as a model.

    Example::

        config = RayConfig.from_file("configs/ray_tune.yaml")
        config.ray_tune.metric      # 'accuracy', wherever the file says it
        config.search_space         # {'learning_rate': {'type': 'loguniform', 'low': 0.0001, 'high': 0.1}}
    """

    ray_cluster: Annotated[RayCluster, Later(), EmptyIsDefault] = Field(
        default_factory=RayCluster.model_construct, description="the cluster that the node runs on"
    )
    ray_tune: RayTune | None = Field(default=None, description="the search")
    ray_train: RayTrain | None = Field(
        default=None,
        description="a distributed training; beside ray_tune each trial is one, with workers of its own",
    )
    ray_map: RayMap | None = Field(
        default=None, description="runs the function over each item of a list, or over the rows of a table"
    )
    default_resources: Annotated[Resources, Later(), EmptyIsDefault] = Field(
        default_factory=Resources.model_construct, description="what one process of the function reserves"
    )
    catalog: Annotated[CatalogSection, Later(), EmptyIsDefault] = Field(
        default_factory=CatalogSection.model_construct, description="where inputs and outputs are kept"
    )

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Let each training of a search have a process of its own, where the file does not say."""
        search = data.get("ray_tune")
        if data.get("ray_train") is not None and isinstance(search, Mapping) and search.get("reuse_actors") is None:
            data["ray_tune"] = {**search, "reuse_actors": False}
        return data

    def problems(self) -> Iterator[Problem]:
        """Yield what the sections contradict in each other."""
        if self.ray_map is not None:
            for name in ("ray_tune", "ray_train"):
                if getattr(self, name) is not None:
                    yield (
                        ("ray_map",),
                        f"cannot be beside {name}: a node runs a search, a training or a map; remove one of them, or "
                        "make two nodes of it",
                    )
        if self.ray_cluster.address == "local":
            from airflow_provider_raynode.config._embedded import embedded_problems

            yield from embedded_problems(self)
        if self.ray_train is not None:
            from airflow_provider_raynode.config._train_rules import between_sections

            yield from between_sections(self)

    @model_validator(mode="wrap")
    @classmethod
    def _plain_data(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        found: list[Problem] = []
        if isinstance(data, Mapping):
            data = {
                key: each if isinstance(each, Section) else plain(each, (str(key),), found)
                for key, each in data.items()
            }
        try:
            config = handler(data)
        except ValidationError as error:
            seen = {loc for loc, _ in found}
            found += [problem for problem in problems_of(error) if problem[0] not in seen]
        else:
            if not found:
                return config
        raise as_validation_error(cls.__name__, found)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """Read a YAML file; relative paths in it are relative to it, and absolute in what is returned.

        :raises ConfigError: one line per problem: the file, the key's path, the value, what is allowed.
        """
        file = Path(path)
        data = read_yaml(file)
        for name in ("ray_tune", "ray_train", "ray_map"):
            if name in data and data[name] is None:
                # A section with nothing below it is asked for: without it the file would mean another kind of work.
                data[name] = {}
        return cls._loaded(data, str(file), [file.expanduser().absolute().parent])

    @classmethod
    def load(
        cls,
        obj: Self | Mapping[str, Any] | str | PathLike[str],
        *,
        source: str = "ray_config",
        folders: Sequence[Path] = (),
    ) -> Self:
        """Return the config that `obj` is, or that the file at the path `obj` holds.

        :param source: what stands in front of each line of the message where `obj` is no path.
        :param folders: where relative paths of a config that is no file are sought; without any they stay relative.
        :raises ConfigError: see `from_file`; an object of another type is refused as well.
        """
        if isinstance(obj, cls):
            obj.check_for_this_python(source)
            return obj._with_absolute_paths(folders, source)
        if isinstance(obj, Mapping):
            return cls._loaded(obj, source, folders)
        if isinstance(obj, str | PathLike):
            return cls.from_file(obj)
        raise ConfigError(f"{source}: {type(obj).__name__} is not a path, a dict or a RayConfig")

    @classmethod
    def _loaded(cls, data: Mapping[Any, Any], source: str, folders: Sequence[Path]) -> Self:
        try:
            config = cls.model_validate(data)
        except ValidationError as error:
            lines = (f"{source}: {_line(problem)}" for problem in problems_of(error))
            raise ConfigError("\n".join(dict.fromkeys(lines))) from None
        config.check_for_this_python(source)
        for text in config.warnings:
            warnings.warn(f"{source}: {text}", ConfigWarning, stacklevel=3)
        return config._with_absolute_paths(folders, source)

    def _with_absolute_paths(self, folders: Sequence[Path], source: str) -> Self:
        sections = with_absolute_paths(self, folders, source)
        return self.model_copy(update=sections) if sections else self

    def check_for_this_python(self, source: str) -> None:
        """Check the libraries where, as far as the file says, the search runs on this machine.

        :raises ConfigError: see `check_libraries`.
        """
        if self.cluster_address in (None, "local"):
            self.check_libraries(source)

    def missing_libraries(self) -> list[MissingLibrary]:
        """Return what the search and the training need and this Python cannot import; nothing is imported."""
        of_search = [] if self.ray_tune is None else missing_libraries(self.ray_tune)
        return of_search + ([] if self.ray_train is None else missing_framework(self.ray_train.trainer))

    def check_libraries(self, source: str = "ray_config") -> None:
        """Check that this Python has what the search and the training need.

        :param source: what stands in front of each line of the message.
        :raises ConfigError: a library is missing, with the command that installs it.
        """
        missing = self.missing_libraries()
        if missing:
            elsewhere = (
                " (or name the cluster that has it in ray_cluster.address)" if self.cluster_address is None else ""
            )
            raise ConfigError("\n".join(f"{source}: {each}{elsewhere}" for each in missing))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the file says and most likely does not mean, one line each; `load` gives them to Python's `warnings`."""
        return warnings_of(self)

    @property
    def work(self) -> WorkKind:
        """What the node runs: a search (whose trials may be trainings), a training, a map, or the function alone."""
        if self.ray_tune is not None:
            return "search"
        if self.ray_train is not None:
            return "training"
        if self.ray_map is not None:
            return "map"
        return "function"

    @property
    def metric(self) -> str | None:
        """The metric by which the best is chosen, where there is one."""
        if self.ray_tune is not None:
            return self.ray_tune.metric
        return self.ray_train.best_by[0] if self.ray_train is not None and self.ray_train.best_by else None

    @property
    def mode(self) -> Literal["min", "max"] | None:
        """Which end of the metric is best."""
        if self.ray_tune is not None:
            return self.ray_tune.mode
        return self.ray_train.best_by[1] if self.ray_train is not None and self.ray_train.best_by else None

    @property
    def trial_resources(self) -> Resources:
        """What a trial's own process reserves; the workers of a training are beside it."""
        own = Resources() if self.ray_tune is None else self.ray_tune.resources
        return own if self.ray_train is not None else own.over(self.default_resources)

    @property
    def call_resources(self) -> Resources:
        """What a call of a plain function reserves, or one worker of a map."""
        return self.default_resources if self.ray_map is None else self.ray_map.resources.over(self.default_resources)

    @property
    def train_checkpoint(self) -> "TrainCheckpoint":
        """Which checkpoints of a training are kept: `ray_train.checkpoint`, the node's metric where it names none."""
        assert self.ray_train is not None
        checkpoint = self.ray_train.checkpoint
        if checkpoint.checkpoint_score_attribute is not None or self.metric is None:
            return checkpoint
        return checkpoint.model_copy(
            update={"checkpoint_score_attribute": self.metric, "checkpoint_score_order": self.mode}
        )

    @property
    def cluster_address(self) -> str | None:
        """Address of the cluster as the file says it; None leaves it to the Airflow connection."""
        return self.ray_cluster.address

    @property
    def container_image(self) -> str | None:
        """The image that the job's processes run in, or None."""
        environment = self.ray_cluster.runtime_env
        if environment is None:
            return None
        return environment.container.image if environment.container else environment.image_uri

    @property
    def search_space(self) -> dict[str, Any]:
        """The search space as plain JSON: a domain's mapping, a constant or a nested mapping per argument."""
        return {} if self.ray_tune is None else self.ray_tune.sampled_space


def _line(problem: Problem) -> str:
    loc, message = problem
    path = path_of(loc)
    return f"{path}: {message}" if path else message
