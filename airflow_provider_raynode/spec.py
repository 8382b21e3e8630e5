"""The contracts between the rooms: NodeSpec, JobRef, NodeProgress, NodeResult. Pure: no airflow, no ray.

Everything that crosses a process boundary is one of these models, as canonical JSON with a sha256 beside it or in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.ray_config import WorkKind
from airflow_provider_raynode.exceptions import SpecError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.texts import clean, cleaned, cut

SCHEMA_VERSION = 1
# Environment variable of a job with secrets: names the file in the attempt's folder that holds their ciphertext.
SECRETS_FILE_VARIABLE = "RAYNODE_SECRETS_FILE"
# In the attempt's folder: an execution task has attached to the job.
ATTACHED_FILE = "attached.json"
# Types of the failures of a job that was ended before its search: stopped, at a limit of its time, …
STOPPED, RUN_TIMEOUT, STARTUP_TIMEOUT, DEADLINE = "Stopped", "RunTimeout", "StartupTimeout", "DeadlineExceeded"
# … or because nobody attached to it in time.
NOT_ATTACHED = "NotAttached"
# In the attempt's folder: an execution task has returned the attempt's result.
TAKEN_FILE = "taken.json"
# In the attempt's folder: Airflow has asked for the job's end; a later task does not attach to it.
STOP_FILE = "stop.json"
# Characters of a failure's message, which goes into Airflow's log and error, and of its traceback.
LONGEST_MESSAGE = 4_000
LONGEST_TRACEBACK = 20_000
_ID = r"^[A-Za-z0-9_-]{1,200}$"


class _Contract(BaseModel):
    """A versioned message: unknown fields are refused, so that two versions of the package never half understand."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _names_are_text(cls, data: Any) -> Any:
        """Refuse a name with a lone surrogate, which pydantic would quietly write as another name."""
        for name in _names_in(data):
            if clean(name) != name:
                raise ValueError(f"the name '{clean(name)}' is not valid Unicode (a lone surrogate)")
        return data

    def to_bytes(self) -> bytes:
        """Return the canonical JSON: sorted keys, no white space, UTF-8; equal models give equal bytes."""
        dumped = self.model_dump(mode="json")
        text = json.dumps(dumped, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        # A lone surrogate is written as JSON's own escape, which reads back as the same.
        return text.encode("utf-8", "backslashreplace")

    @classmethod
    def from_bytes(cls, data: bytes, *, sha256: str | None = None, source: str = "") -> Self:
        """Read the model back.

        :param data: what `to_bytes` gave.
        :param sha256: the expected digest of `data`; None trusts the channel that `data` came through.
        :param source: where the bytes come from, for the message.
        :raises SpecError: the digest differs, the JSON is broken, or a field is missing, unknown or of a wrong type.
        """
        where = f" from {source}" if source else ""
        if sha256 is not None and (found := digest(data)) != sha256:
            raise SpecError(f"{cls.__name__}{where}: sha256 is {found}, expected {sha256}: it was altered or truncated")
        try:
            raw = json.loads(data)
        except ValueError as error:
            raise SpecError(f"{cls.__name__}{where} is not JSON ({error}): it was truncated or altered") from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise SpecError(
                f"{cls.__name__}{where} has schema version {version}, this package reads up to {SCHEMA_VERSION}: "
                "upgrade airflow-provider-raynode here"
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise SpecError(f"{cls.__name__}{where} is not valid: {error}") from error


class _Told(_Contract):
    """What a job tells: a text that no store or log could hold never keeps it from being written."""

    @model_validator(mode="before")
    @classmethod
    def _readable(cls, data: Any) -> Any:
        return cleaned(data) if isinstance(data, dict) else data


def _names_in(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for name, value in data.items():
            if isinstance(name, str):
                yield name
            yield from _names_in(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _names_in(value)


def digest(data: bytes) -> str:
    """Return the sha256 of `data` as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


class Versions(_Contract):
    """The versions of a process: `python` as `3.11.7`, `ray` None where Ray is not imported."""

    python: str
    package: str
    ray: str | None = None


class RunContext(_Contract):
    """The Airflow run that a node belongs to, as the function sees it on a worker."""

    dag_id: str
    run_id: str
    node_id: str = Field(description="id of the node's task group, or of the fan-out task's prefix")
    map_index: int = -1
    try_number: int = 1
    logical_date: datetime | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    map_variables: dict[str, Any] = Field(
        default_factory=dict, description="the arguments of the mapped task group for this map index"
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="what the node's parameters_file holds")


class FunctionRef(_Contract):
    """The node's function: by import path, or by value as a cloudpickle in the node's own catalog prefix."""

    name: str = Field(description="qualified name, for messages")
    import_path: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$", description="pkg.mod:fn")
    pickle: dict[str, Any] | None = Field(default=None, description="CatalogRef of the cloudpickle")
    modules: dict[str, Any] | None = Field(
        default=None, description="CatalogRef of the sources of modules beside the DAG file, by path"
    )
    python: str = Field(description="version of the Python that pickled it, as 3.11.7")


class CodeIdentity(_Contract):
    """What code a node runs: equal digests compute the same."""

    function_sha256: str | None = Field(default=None, description="digest of the function's code and what it refers to")
    git_commit: str | None = Field(default=None, description="commit of the DAG file's repository, where there is one")
    git_dirty: bool | None = Field(default=None, description="whether that repository has uncommitted changes")


class SealedSecrets(_Contract):
    """Where the encrypted half of an attempt's secrets lies; the other half, the key, travels with the job."""

    uri: str = Field(description="the ciphertext, in the attempt's folder; deleted when the attempt ends")
    names: tuple[str, ...] = Field(description="as the author wrote them: conn:my_db, var:api_key, var:key as ENV")


class Limits(_Contract):
    """How long a job may take, in seconds; None for no limit."""

    startup_timeout_s: float | None = Field(default=None, gt=0, description="from the submission to the first trial")
    run_timeout_s: float | None = Field(default=None, gt=0, description="from the driver's start to its end")
    attach_timeout_s: float | None = Field(
        default=None, gt=0, description="a job that no execution task has attached to by then stops itself"
    )


class Entrypoint(_Contract):
    """A shell command that is the job, in the place of a function."""

    command: str = Field(min_length=1)
    num_cpus: float | None = Field(default=None, ge=0, description="CPUs that the command itself reserves")
    num_gpus: float | None = Field(default=None, ge=0)
    memory: int | None = Field(default=None, ge=0, description="bytes")
    resources: dict[str, float] = Field(default_factory=dict)
    label_selector: dict[str, str] = Field(default_factory=dict)
    metadata: dict[str, str] = Field(default_factory=dict, description="shown with the job by Ray; no secrets")
    by_driver: bool = Field(
        default=False, description="whether the driver starts the command, as for its secrets; else Ray itself does"
    )


class NodeSpec(_Contract):
    """All that a Ray job knows of its node: written to the catalog by fan-out, read by the driver."""

    schema_version: Literal[1] = 1
    submission_id: str = Field(pattern=_ID)
    attempt: int = Field(ge=1)
    context: RunContext
    function: FunctionRef
    op_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="JSON values; a CatalogRef dict anywhere in them stands for its data"
    )
    op_args: tuple[Any, ...] = Field(default=(), description="values by position, as op_kwargs are by name")
    returns: tuple[Return, ...] = ()
    returned: Literal["named", "value", "values"] = Field(
        default="named",
        description="what a plain function returns: what `returns` names of a dict; one value, whatever it is; or "
        "a value for each key of a dict",
    )
    entrypoint: Entrypoint | None = Field(default=None, description="a command in the place of the function")
    config: RayConfig
    catalog_uri: str = Field(description="root of the catalog: an absolute path or a fsspec URI")
    node_prefix: str = Field(description="<catalog>/<dag_id>/<run_id>/<node id>/<map_index>, as a URI")
    staged_by: Versions
    code: CodeIdentity = CodeIdentity()
    secrets: tuple[str, ...] = Field(default=(), description="names, as the author wrote them; never a value")
    limits: Limits = Limits()
    search_of: int | None = Field(
        default=None, ge=1, description="the earlier attempt whose search this one continues; None: it begins its own"
    )
    on_change: Literal["refuse", "restart"] = Field(
        default="refuse", description="what becomes of a search whose state cannot be gone on with"
    )

    @property
    def attempt_prefix(self) -> str:
        """URI of the folder of this attempt: spec, progress, result, trials, outputs, log."""
        return f"{self.node_prefix}/attempt_{self.attempt}"

    @property
    def experiment_prefix(self) -> str:
        """URI of the folder of Tune's experiments: one per search, which attempts that resume it share."""
        return f"{self.node_prefix}/experiment"

    @property
    def state_uri(self) -> str:
        """URI of the file whose presence says that the work has begun and that a later attempt can go on with it.

        Tune's own for a search, as `search_state` keeps it; the others write theirs below `experiment_prefix`.
        """
        name = "tuner.pkl" if self.config.work == "search" else f"{self.config.work}.json"
        return f"{self.experiment_prefix}/{self.experiment_name}/{name}"

    @property
    def drivers_prefix(self) -> str:
        """URI of the folder that says which driver works on the search: attempts that share it have one."""
        return f"{self.node_prefix}/attempt_{self.search_of or self.attempt}/drivers"

    @property
    def search_id(self) -> str:
        """Digest of what names the search: one node of one run in one catalog, and the attempt that began it.

        Ray and Tune key by names and by the second: whatever they name after the search bears this, so that nothing of
        two searches meets on a cluster, whichever Airflow they come from.
        """
        run = self.context
        key = [run.dag_id, run.run_id, run.node_id, run.map_index, self.node_prefix, self.search_of or self.attempt]
        return digest(json.dumps(key, ensure_ascii=False).encode())

    @property
    def experiment_name(self) -> str:
        """Name of the search's folder below `experiment_prefix`, and of the one that Tune stages it in on the head."""
        return f"attempt_{self.search_of or self.attempt}-{self.search_id[:16]}"

    @property
    def trial_prefix(self) -> str:
        """How the ids of the search's trials begin: each says by itself whose it is."""
        return f"{self.search_id[:8]}_"


class JobRef(_Contract):
    """What fan-out passes on through XCom: which job, where its spec is, how it runs."""

    schema_version: Literal[1] = 1
    launcher: Literal["jobs_api", "local", "rayjob"]
    submission_id: str = Field(pattern=_ID)
    attempt: int = Field(ge=1)
    ray_conn_id: str | None = None
    address: str = Field(description="the Jobs API's base URL, `local` or `rayjob`")
    spec_uri: str
    spec_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    catalog_uri: str
    node_prefix: str

    @property
    def attempt_prefix(self) -> str:
        """URI of the folder of this attempt."""
        return f"{self.node_prefix}/attempt_{self.attempt}"


class Best(_Told):
    """The best trial so far, or at the end."""

    trial_id: str
    config: dict[str, Any]
    metrics: dict[str, Any]


class TrainingProgress(_Told):
    """How far a training is, as its counted reports tell."""

    step: int = Field(default=0, description="counted reports so far, those of earlier attempts included")
    steps: int | None = Field(default=None, description="reports in all, where that is known")
    metrics: dict[str, Any] = Field(default_factory=dict, description="of the last counted report")
    best_step: int | None = None
    best_metrics: dict[str, Any] | None = None
    workers: int = Field(default=0, description="workers that train at this moment")
    restarts: int = Field(default=0, description="times that the workers were started anew")


class NodeProgress(_Told):
    """A snapshot of running work, rewritten in place as `progress.json`.

    The counts are of trials, or of a map's items; a training has its own below `training`.
    """

    schema_version: Literal[1] = 1
    work: WorkKind = "search"
    phase: Literal["starting", "running", "collecting", "done", "failed"]
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    total: int | None = Field(default=None, description="trials or items in all; None where a time budget decides")
    pending: int = 0
    running: int = 0
    terminated: int = Field(default=0, description="trials whose function returned; items that succeeded")
    early_stopped: int = Field(default=0, description="trials that the scheduler or `stop` ended before that")
    errored: int = 0
    training: TrainingProgress | None = None
    cut_off: int = Field(default=0, description="trials that had begun when the search ended")
    best: Best | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None
    updated: datetime

    @property
    def ended(self) -> int:
        """How many trials have come to their own end."""
        return self.terminated + self.early_stopped + self.errored


Ending = Literal["all_trials", "time_budget", "fail_fast", "stalled", "searcher_finished", "incomplete", "stopped"]


class Completion(_Told):
    """How much of its search an attempt did, and why it ended there."""

    asked: int | None = Field(default=None, description="trials that the config asks for; None: as many as time allows")
    finished: int = Field(default=0, description="trials whose function returned")
    early_stopped: int = Field(default=0, description="trials that the scheduler or `stop` ended before that")
    failed: int = 0
    cut_off: int = Field(default=0, description="trials that had begun and had not ended")
    ending: Ending = "incomplete"
    reason: str = Field(default="", description="why it ended, in words")

    @property
    def ended(self) -> int:
        """How many trials have come to their own end."""
        return self.finished + self.early_stopped + self.failed

    @property
    def whole(self) -> bool:
        """Whether all trials that were asked for have ended."""
        return self.ending == "all_trials"

    def summary(self) -> str:
        """Return `3 of 6 failed, 2 finished, 1 stopped early`."""
        of = "" if self.asked is None else f" of {self.asked}"
        counts = {
            "failed": self.failed,
            "finished": self.finished,
            "stopped early": self.early_stopped,
            "cut off": self.cut_off,
            "not begun": 0 if self.asked is None else max(self.asked - self.ended - self.cut_off, 0),
        }
        said = [(name, count) for name, count in counts.items() if count] or [("finished", 0)]
        first, *rest = said
        return ", ".join([f"{first[1]}{of} {first[0]}", *(f"{count} {name}" for name, count in rest)])


TrainingEnding = Literal["finished", "stop_rule", "time_budget", "stopped", "incomplete"]


class TrainingEnd(_Told):
    """How a training ended: a function that returned on every rank, or what ended it before that."""

    world_size: int | None = Field(default=None, description="workers at the end; None where none had started")
    reports: int = Field(default=0, description="counted reports, those of earlier attempts included")
    ending: TrainingEnding = "incomplete"
    reason: str = Field(default="", description="why it ended, in words")
    restarts: int = Field(default=0, description="times that the workers were started anew in this attempt")
    resumed_from: int | None = Field(default=None, description="report whose checkpoint this attempt began with")

    @property
    def whole(self) -> bool:
        """Whether it ended as its function or its config lets it, and was not cut off."""
        return self.ending in ("finished", "stop_rule", "time_budget")


MapEnding = Literal["all_items", "failed_item", "stopped", "incomplete"]


class MapEnd(_Told):
    """How much of a map an attempt did, and why it ended there."""

    items: int = Field(default=0, description="items in all")
    succeeded: int = Field(default=0, description="items that have a result, those of earlier attempts included")
    failed: int = Field(default=0, description="items whose call raised")
    restored: int = Field(default=0, description="items that earlier attempts had done")
    ending: MapEnding = "incomplete"
    reason: str = Field(default="", description="why it ended, in words")

    @property
    def whole(self) -> bool:
        """Whether every item has ended, by itself or with its error."""
        return self.ending == "all_items" and self.succeeded + self.failed == self.items


class NodeFailure(_Told):
    """Why a job failed. What is longer than a log can use is cut in the middle, with a note."""

    type: str = Field(description="class name of the error")
    message: str
    traceback: str = ""
    trial_id: str | None = None
    rank: int | None = Field(default=None, description="the worker of a training that raised")
    item: int | None = Field(default=None, description="index of the item of a map whose call raised")

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        lengths = {"type": 200, "message": LONGEST_MESSAGE, "traceback": LONGEST_TRACEBACK}
        texts = {name: data[name] for name in lengths if isinstance(data.get(name), str)}
        short = {name: cut(text, lengths[name]) for name, text in texts.items()}
        return {**data, **short}


class NodeResult(_Told):
    """The manifest of an ended attempt, written once as `result.json` (see `seal` and `unseal`)."""

    schema_version: Literal[1] = 1
    submission_id: str
    attempt: int
    spec_sha256: str
    state: Literal["SUCCEEDED", "FAILED"]
    failure: NodeFailure | None = None
    metric: str | None = None
    mode: Literal["min", "max"] | None = None
    best: Best | None = None
    outputs: dict[str, dict[str, Any]] = Field(default_factory=dict, description="CatalogRef per output")
    front: dict[str, Any] | None = Field(
        default=None, description="with several metrics: CatalogRef of the trials that no other beats (JSON)"
    )
    trials: dict[str, Any] | None = Field(default=None, description="CatalogRef of the trials table (parquet)")
    steps: dict[str, Any] | None = Field(default=None, description="CatalogRef of the reported steps (parquet)")
    trial_states: dict[str, int] = Field(
        default_factory=dict,
        description="number of trials by status: TERMINATED, EARLY_STOPPED, ERROR, CUT_OFF, PENDING (never begun)",
    )
    completion: Completion | None = Field(default=None, description="None where it failed before its search")
    metrics: dict[str, Any] | None = Field(
        default=None, description="of a training's last counted report, or of what a function returned"
    )
    best_metrics: dict[str, Any] | None = Field(default=None, description="of a training's best report")
    best_step: int | None = Field(default=None, description="number of a training's best report")
    training: TrainingEnd | None = Field(default=None, description="how a training ended")
    value: Any = Field(default=None, description="what a function returned, where that is small JSON")
    items: MapEnd | None = Field(default=None, description="how a map ended")
    failed: tuple[int, ...] = Field(default=(), description="indexes of a map's failed items, the first of many")
    warnings: tuple[str, ...] = ()
    started: datetime
    ended: datetime
    timings_s: dict[str, float] = Field(default_factory=dict, description="seconds by phase")
    versions: Versions
    resources: dict[str, float] = Field(default_factory=dict, description="what the cluster had")
    restored: int = Field(default=0, description="trials or items that an earlier attempt had finished")
    cluster: str | None = Field(
        default=None, description="name of the RayCluster that it ran on, where KubeRay made one"
    )


def seal(result: NodeResult) -> bytes:
    """Return `result.json`: the result under `body` with its sha256 beside it, so that a torn write is seen."""
    body = result.to_bytes()
    return b'{"sha256":"' + digest(body).encode() + b'","body":' + body + b"}"


_SEALED = re.compile(rb'\A\{"sha256":"([0-9a-f]{64})","body":(.*)\}\s*\Z', re.DOTALL)


def unseal(data: bytes, *, source: str = "result.json") -> NodeResult:
    """Read what `seal` wrote.

    :raises SpecError: truncated, altered, or not a result.
    """
    match = _SEALED.match(data)
    if match is None:
        raise SpecError(f"{source} is truncated or is not a result of this package ({len(data)} bytes)")
    return NodeResult.from_bytes(match.group(2), sha256=match.group(1).decode(), source=source)


def submission_id(dag_id: str, run_id: str, node_id: str, map_index: int, attempt: int, catalog_uri: str = "") -> str:
    """Return the deterministic submission id: readable, unique, `[A-Za-z0-9_-]` only, at most 120 characters.

    A pure function of its arguments: two processes that submit the same attempt submit the same id.

    :param catalog_uri: root of the node's catalog: two Airflows that run the same DAG on one cluster have two.
    """
    key = json.dumps([dag_id, run_id, node_id, map_index, catalog_uri], ensure_ascii=False)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{dag_id}-{node_id}")[:80].strip("-")
    index = f"-{map_index}" if map_index >= 0 else ""
    return f"raynode-{name}{index}-{digest(key.encode())[:16]}-a{attempt}"


_SUBMISSION = re.compile(r"raynode-(.*)-([0-9a-f]{16})-a(\d+)", re.DOTALL)
# KubeRay takes 47 characters.
_LONGEST_RAY_JOB, _LONGEST_WHAT = 47, 24


def ray_job_name(submission_id: str) -> str:
    """Return the name of the RayJob that runs a submission: the same for each try of it, another for each attempt.

    Lower-case letters, digits and `-`, at most 47 characters, with a letter first.
    """
    match = _SUBMISSION.fullmatch(submission_id)
    what, key, number = match.groups() if match else (submission_id, digest(submission_id.encode())[:16], "1")
    # The end of it: it has the node's id and map index.
    what = re.sub(r"[^a-z0-9]+", "-", what.lower())[-_LONGEST_WHAT:].lstrip("-0123456789").strip("-") or "search"
    return f"{what}-{key[:12]}-a{number}"[:_LONGEST_RAY_JOB]


def earlier_ray_job_names(name: str) -> tuple[str, ...]:
    """Return the names of the RayJobs of the attempts before that of a RayJob, the newest first."""
    base, _, number = name.rpartition("-a")
    return tuple(f"{base}-a{each}" for each in range(int(number) - 1, 0, -1)) if number.isdigit() else ()
