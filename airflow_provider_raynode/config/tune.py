"""The section `ray_tune`: the search."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from airflow_provider_raynode.config._kinds import ByType, Kind
from airflow_provider_raynode.config._later import Later
from airflow_provider_raynode.config._section import Problem, Section, folded
from airflow_provider_raynode.config._several_metrics import several_metrics_problems, with_further_metrics
from airflow_provider_raynode.config._values import (
    EmptyIsDefault,
    Integer,
    LimitOrNone,
    Number,
    PositiveInteger,
    PositiveNumber,
    Seed,
    Switch,
    Text,
    or_list,
)
from airflow_provider_raynode.config.domains import domain_name
from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.config.search_space import NO_SPACE, SearchSpaceSchema, with_mutations

if TYPE_CHECKING:
    from airflow_provider_raynode.config.schedulers import AnyScheduler
    from airflow_provider_raynode.config.searchers import AnySearcher
else:
    # Imported where a config names one.
    AnyScheduler = Annotated[
        Kind,
        ByType(
            (),
            "scheduler",
            later=(
                "airflow_provider_raynode.config.schedulers:SCHEDULERS",
                "airflow_provider_raynode.config.pruners:PRUNERS",
            ),
        ),
    ]
    AnySearcher = Annotated[
        Kind, ByType((), "search algorithm", later="airflow_provider_raynode.config.searchers:SEARCHERS")
    ]

DEFAULT_NUM_SAMPLES = 10
# What Tune itself counts of each trial, and the node shows among its metrics.
COUNTED = ("training_iteration", "time_total_s")
_PARTS = ("search_algorithm", "scheduler")


class Failure(Section):
    """What happens when a trial fails: Ray's FailureConfig, and what a search needs to count as done."""

    max_failures: LimitOrNone = Field(
        default=0, description="times that a trial is tried again from its last checkpoint; -1: without end"
    )
    fail_fast: Switch | Literal["raise"] = Field(
        default=False, description="whether the first failure ends the search; `raise`: with the trial's own error"
    )
    min_successful: PositiveInteger = Field(
        default=1, description="trials that must end with a finite metric; with fewer, the node fails"
    )
    on_resume: Literal["restart", "resume", "keep"] = Field(
        default="restart",
        description="what a retry of the node does with trials that had failed: run them anew, go on from their last "
        "checkpoint, or leave them failed",
    )
    stall_timeout_s: PositiveNumber = Field(
        default=60.0,
        description="seconds after which a search counts as at a standstill: no trial runs or waits for resources, and "
        "none is proposed; the time in which the search algorithm computes a proposal does not count; on the embedded "
        "Ray, where nobody else could hold them, waiting for resources counts after ten times as long",
    )
    on_stall: Literal["fail", "finish"] = Field(
        default="fail",
        description="what becomes of a search that stands still, or whose algorithm proposes nothing any more, before "
        "all its trials: the node fails, or ends with what there is, where min_successful trials are",
    )

    def problems(self) -> Iterator[Problem]:
        """Yield what contradicts itself."""
        if self.fail_fast and self.max_failures != 0:
            yield ("max_failures",), f"{self.max_failures} contradicts fail_fast: leave one of them out"


class Checkpoint(Section):
    """Which checkpoints of a trial are kept: Ray's CheckpointConfig."""

    not_in_yaml: ClassVar[Mapping[str, str]] = {
        "checkpoint_frequency": "a function reports its checkpoints itself: report(metrics, checkpoint=…)",
        "checkpoint_at_end": "a function reports its checkpoints itself: report(metrics, checkpoint=…)",
    }

    num_to_keep: PositiveInteger | None = Field(default=None, description="checkpoints kept per trial; left out: all")
    checkpoint_score_attribute: Text | None = Field(
        default=None,
        description="metric that says which checkpoints are best; left out: the latest. A report with a checkpoint "
        "must have it",
    )
    checkpoint_score_order: Literal["max", "min"] = Field(default="max", description="which end of it is best")

    def problems(self) -> Iterator[Problem]:
        """Yield an order of nothing."""
        if self.checkpoint_score_order == "min" and self.checkpoint_score_attribute is None:
            yield ("checkpoint_score_order",), "has no effect without checkpoint_score_attribute: name the metric"


class WarmStart(Section):
    """An earlier search to begin with what it found."""

    trials: Text | dict[str, Any] = Field(
        description="its trials table: the reference that an earlier node pushed as `trials`, or the URI of its "
        "trials.parquet"
    )
    points: PositiveInteger = Field(
        default=5,
        description="how many of its best trials are run again first, where the search algorithm cannot be told their "
        "results; OptunaSearch with one metric is told all of them, and runs none again",
    )


class RayTune(Section):
    """The search: what varies, what is compared, how long, how."""

    search_space: Annotated[dict[str, Any], SearchSpaceSchema()] = Field(
        default_factory=dict,
        description="a domain, a constant or a nested mapping per name; each name is an argument of the function",
    )
    metric: Text | None = Field(
        default=None,
        description="the returned or reported value that is compared, or a list of them; required, here or in a part "
        "below",
        json_schema_extra=or_list,
    )
    mode: Literal["min", "max"] | None = Field(
        default=None,
        description="whether the least or the greatest value is best; required, here or in a part below",
        json_schema_extra=or_list,
    )
    further_metrics: dict[Text, Literal["min", "max"]] | None = Field(
        default=None,
        description="metrics that are weighed against `metric`, with their modes: the result is then the front of the "
        "trials that none other beats in all of them. The same as lists: metric: [accuracy, latency], mode: [max, min]",
    )
    num_samples: Integer = Field(
        default=DEFAULT_NUM_SAMPLES,
        description="number of trials, or of repetitions of the grid; left out: 10, and 1 where the space has a "
        "grid or nothing that varies; -1: as many as time_budget_s allows",
    )
    max_concurrent_trials: PositiveInteger | None = Field(
        default=None, description="most trials at a time; left out: as many as the resources allow"
    )
    time_budget_s: PositiveNumber | None = Field(default=None, description="seconds after which the search ends")
    stop: dict[Text, Number] | None = Field(
        default=None,
        description="a trial ends when a reported value reaches its bound, e.g. {training_iteration: 20}: a metric "
        "in its own direction (with mode min at or below the bound), every other value at or above it; a name that "
        "nobody reports fails the trial at its second report",
    )
    seed: Seed | None = Field(default=None, description="seed of the search, for runs that propose the same trials")
    warm_start: WarmStart | None = Field(
        default=None, description="an earlier search over this space, or one like it, to begin with"
    )
    scheduler: AnyScheduler | None = Field(
        default=None, description="stops or changes trials while they run; left out: FIFOScheduler"
    )
    search_algorithm: AnySearcher | None = Field(
        default=None, description="proposes the trials; left out: BasicVariantGenerator"
    )
    failure: Annotated[Failure, Later(), EmptyIsDefault] = Field(
        default_factory=Failure.model_construct, description="what happens when a trial fails"
    )
    checkpoint: Annotated[Checkpoint, Later(), EmptyIsDefault] = Field(
        default_factory=Checkpoint.model_construct, description="which checkpoints of a trial are kept"
    )
    resources: Annotated[Resources, Later(), EmptyIsDefault] = Field(
        default_factory=Resources.model_construct,
        description="what one trial reserves; what it leaves out is that of default_resources. Beside ray_train: what "
        "a trial's own process reserves, which only waits for its workers: left out nothing, and default_resources are "
        "the workers'",
    )
    reuse_actors: Switch = Field(
        default=True,
        description="whether a process runs one trial after the other: far faster for short trials, but they "
        "share the process's globals; left out with ResourceChangingScheduler or beside ray_train: false",
    )
    logger_callbacks: Switch = Field(
        default=False, description="whether Ray writes its CSV, JSON and TensorBoard logs per trial"
    )
    keep_outputs: Literal["best", "all"] = Field(
        default="best", description="whose outputs are kept: those of the best trial, or of all"
    )
    scope: Literal["last", "all", "avg", "last-5-avg", "last-10-avg"] = Field(
        default="last",
        description="by which of its reports a trial is compared: the last, the best (all), or an average, as in Ray's "
        "get_best_result",
    )

    @classmethod
    def prepared(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Fill in metric and mode from the parts, and the defaults that depend on other values."""
        data = with_further_metrics(dict(data))
        for name in ("metric", "mode"):
            if data.get(name) is None:
                given = (part.get(name) for part in _parts(data))
                data[name] = next((value for value in given if isinstance(value, str)), None)
            if data[name] is None:
                del data[name]
        if data.get("num_samples") is None:
            data["num_samples"] = 1 if _one_sample(data) else DEFAULT_NUM_SAMPLES
        if data.get("reuse_actors") is None:
            data["reuse_actors"] = not _is_resource_changing(data.get("scheduler"))
        return data

    def problems(self) -> Iterator[Problem]:
        """Yield what does not fit together."""
        yield from self._metric_problems()
        yield from several_metrics_problems(self)
        if self.num_samples < -1 or self.num_samples == 0:
            yield ("num_samples",), f"{self.num_samples} is not allowed: 1 or more, or -1 with time_budget_s"
        if self.num_samples == -1 and self.time_budget_s is None:
            yield (
                ("num_samples",),
                "-1 (without end) needs time_budget_s, or the search never ends (stop ends one trial)",
            )
        if self.scheduler is not None or self.search_algorithm is not None:
            from airflow_provider_raynode.config._rules import combination_problems

            yield from combination_problems(self)
        elif not self.search_space:
            yield ("search_space",), NO_SPACE

    def _metric_problems(self) -> Iterator[Problem]:
        if self.metric in COUNTED:
            yield (
                ("metric",),
                f"{self.metric!r} is counted by Tune itself: name a value that the function reports",
            )
        what = {
            "metric": "the name of the returned or reported value to compare, e.g. metric: accuracy",
            "mode": "max or min, whichever of the metric is best",
        }
        for name, remedy in what.items():
            value = getattr(self, name)
            if value is None:
                yield (name,), f"is missing: {remedy} (here, in search_algorithm or in scheduler)"
            for part in _PARTS:
                own = getattr(getattr(self, part), name, None)
                if own is not None and own != value:
                    yield (
                        (part, name),
                        f"{own!r} contradicts {value!r} in another place: say it once, in ray_tune.{name}",
                    )

    @property
    def is_replay(self) -> bool:
        """Whether the hyperparameters come from the file of an earlier population based training."""
        scheduler = getattr(self.scheduler, "base_scheduler", None) or self.scheduler
        return scheduler is not None and scheduler.type == "PopulationBasedTrainingReplay"

    @property
    def objectives(self) -> dict[str, Literal["min", "max"]]:
        """Every metric with its mode, `metric` first."""
        first = {self.metric: self.mode} if self.metric is not None and self.mode is not None else {}
        return {**first, **(self.further_metrics or {})}

    @property
    def sampled_space(self) -> dict[str, Any]:
        """The search space and the hyperparameters that only the scheduler's mutations name: a trial's whole config."""
        return with_mutations(self.search_space, self.scheduler)


def _parts(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _PARTS:
        part = data.get(name)
        if isinstance(part, Mapping):
            yield part
        elif isinstance(part, Section):
            yield part.model_dump()
        base = part.get("base_scheduler") if isinstance(part, Mapping) else None
        if isinstance(base, Mapping):
            yield base


def _kind(part: Any) -> str:
    word = part.get("type") if isinstance(part, Mapping) else getattr(part, "type", part)
    return folded(word) if isinstance(word, str) else ""


def _is_resource_changing(scheduler: Any) -> bool:
    if not (kind := _kind(scheduler)):
        return False
    from airflow_provider_raynode.config.schedulers import ResourceChangingScheduler

    return kind in {folded(name) for name in ResourceChangingScheduler.names()}


def _one_sample(data: Mapping[str, Any]) -> bool:
    """Whether one sample is what the author means: a grid, nothing that varies, or PBT's replay of one trial."""
    scheduler = _kind(data.get("scheduler"))
    if scheduler in ("pbtreplay", "populationbasedtrainingreplay"):
        return True
    varies = scheduler in ("pbt", "populationbasedtraining", "pb2")
    names = set(_domain_names(data.get("search_space")))
    return "grid_search" in names or not (varies or names)


def _domain_names(space: Any) -> Iterator[str]:
    if not isinstance(space, Mapping):
        return
    word = space.get("type")
    name = domain_name(word) if isinstance(word, str) else None
    if name is not None:
        if name != "constant":
            yield name
        return
    for value in space.values():
        yield from _domain_names(value)
