"""The composite node: one task group of fan-out, execution and fan-in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from airflow.sdk import TaskGroup

from airflow_provider_raynode.operators._kinds import EXECUTIONS, UNKNOWN_EXECUTION, ExecutionName
from airflow_provider_raynode.operators._output import KnownOutput, NodeArgument, NodeOutput
from airflow_provider_raynode.operators._place import placed
from airflow_provider_raynode.operators._resolve import check_on_kill
from airflow_provider_raynode.operators.execution import RayExecutionOperator
from airflow_provider_raynode.operators.fan_in import RayFanInOperator
from airflow_provider_raynode.operators.fan_out import (
    DEFAULT_ATTACH_TIMEOUT_S,
    DEFAULT_CONN_ID,
    RayFanOutOperator,
)
from airflow_provider_raynode.operators.task import RayTaskOperator
from airflow_provider_raynode.operators.train import RayTrainOperator
from airflow_provider_raynode.operators.tune import RayTuneOperator
from airflow_provider_raynode.task_groups._arguments import (
    TaskArguments,
    completed,
    inherited_defaults,
    task_arguments,
)

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.config import RayConfig
    from airflow_provider_raynode.config.ray_config import WorkKind
    from airflow_provider_raynode.operators._attempt import OnChange
    from airflow_provider_raynode.operators.execution import OnKill
    from airflow_provider_raynode.returns import Return


_OPERATORS: dict[WorkKind | None, type[RayExecutionOperator]] = {
    "search": RayTuneOperator,
    "training": RayTrainOperator,
    "function": RayTaskOperator,
    "map": RayTaskOperator,
    None: RayExecutionOperator,
}


def _execution(work: WorkKind | None) -> tuple[type[RayExecutionOperator], ExecutionName]:
    """Return the execution task of a node by the kind of its work, None where that is not known yet."""
    return _OPERATORS[work], UNKNOWN_EXECUTION if work is None else EXECUTIONS[work]


class RayNode(TaskGroup, NodeArgument):
    """Work on Ray as one node of a DAG: the tasks `fan_out`, an execution task and `fan_in` in a group.

    The config says what the node runs, and the execution task is named after it:

    - `ray_tune`: a hyperparameter search, `tune`; with `ray_train` beside it each trial is a distributed training,
    - `ray_train` alone: a distributed training, `train`,
    - `ray_map`: the function over each of many items, `run`,
    - none of them: the function once, `run`.

    A config that is a template, or another task's output, is known when the node runs (of a dict the sections are known
    before): its task is `tune`, which then runs every kind. `execution` is the execution task whatever its name.

    It takes part in dependencies like any task group (`a >> node >> b`), stands inside other groups, and inside a
    mapped task group every map index is a node of its own. `output` is what fan-in pushes. Tasks take it, the node
    itself (which stands for it), or a part of it at any depth: `node.outputs["model"]`, `node.best_config`,
    `node.output["best_metrics"]["accuracy"]`.

    Example::

        node = RayNode(
            "tuning",
            python_callable=train_model,
            ray_config="configs/ray_tune.yaml",
            op_kwargs={"data": make_data()},
            returns=[pickled("model")],
        )
        evaluate(node.output)

    :param group_id: id of the node and its group; the tasks' ids begin with it.
    :param python_callable: the plain function of a trial, of each worker of a training, of a call, or its import path
        `pkg.mod:fn`.
    :param ray_config: path of the YAML file, relative to the DAG file or absolute, a dict, or a RayConfig. (templated)
    :param op_kwargs: further arguments of the function, XComs included; references are loaded before the call.
        (templated)
    :param returns: the function's outputs: `pickled("model")`, `json("report")`, `metric("accuracy")`, or a name.
    :param ray_conn_id: the Airflow connection of type `ray`; without one the job runs on an embedded Ray.
    :param secrets: what the function may read on the workers: `["conn:my_db", "var:api_key as API_KEY"]`.
    :param parameters_file: YAML file of further arguments by name; op_kwargs and hyperparameters win. (templated)
    :param deferrable: wait for a cluster's job in the triggerer; default: true, unless
        `AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE` or `[raynode] deferrable` say otherwise.
    :param poll_interval_s: longest distance in seconds between two looks at the job.
    :param grace_s: how long in seconds the cluster may be silent before the wait is given up.
    :param startup_timeout_s: longest time in seconds until the first trial, worker or call runs; None for no limit.
    :param run_timeout_s: longest time in seconds for the whole job; None for no limit.
    :param attach_timeout_s: seconds after which a job stops itself that no execution task has attached to; None: never.
    :param on_kill: what becomes of the job when the task is stopped, cleared or marked: `stop`, or `detach` to leave it
        running for a later try.
    :param on_change: what to do when the node runs again after a failure and its function, inputs or config have
        changed, or its state is damaged: `refuse`, or `restart` to start anew.
    :param default_args: defaults of the three tasks (retries, pool, queue, …), over those of the DAG and of the groups
        around it. As with an operator, every parameter of the node takes its default from there as well.
    :param prefix_group_id: the ids of the tasks begin with the group's and a dot; else with its own id and an
        underscore.
    :param parent_group: the group in which the node stands; default: the one that is open here.
    :param dag: the DAG; default: the one that is open here.
    :param group_display_name: name in Airflow's UI in the place of the id.
    :param tooltip: text in Airflow's UI when the mouse is over the node.
    :param doc_md: Markdown on the node in Airflow's UI.
    :param ui_color: colour of the node in Airflow's UI.
    :param ui_fgcolor: colour of its text.
    :param add_suffix_on_collision: append `__1` and so on where the id is taken, in place of an error.
    :param task_args: Airflow's arguments of a task (retries, pool, execution_timeout, trigger_rule, callbacks, …); they
        win over default_args. `docs/parameters.md` says which task gets which.
    """

    @completed
    def __init__(
        self,
        group_id: str,
        *,
        python_callable: Callable[..., Any] | str,
        ray_config: str | Path | Mapping[str, Any] | RayConfig,
        op_kwargs: Mapping[str, Any] | None = None,
        returns: Iterable[Return | str] = (),
        ray_conn_id: str = DEFAULT_CONN_ID,
        secrets: Sequence[str] = (),
        parameters_file: str | Path | None = None,
        deferrable: bool | None = None,
        poll_interval_s: float = 2.0,
        grace_s: float = 300.0,
        startup_timeout_s: float | None = None,
        run_timeout_s: float | None = None,
        attach_timeout_s: float | None = DEFAULT_ATTACH_TIMEOUT_S,
        on_kill: OnKill = "stop",
        on_change: OnChange = "refuse",
        default_args: Mapping[str, Any] | None = None,
        prefix_group_id: bool = True,
        parent_group: TaskGroup | None = None,
        dag: DAG | None = None,
        group_display_name: str = "",
        tooltip: str = "",
        doc_md: str | None = None,
        ui_color: str = "CornflowerBlue",
        ui_fgcolor: str = "#000",
        add_suffix_on_collision: bool = False,
        **task_args: Unpack[TaskArguments],
    ) -> None:
        given: dict[str, Any] = {"parent_group": parent_group, "dag": dag, "default_args": dict(default_args or {})}
        super().__init__(
            group_id=group_id,
            prefix_group_id=prefix_group_id,
            tooltip=tooltip,
            doc_md=doc_md,
            ui_color=ui_color,
            ui_fgcolor=ui_fgcolor,
            group_display_name=group_display_name,
            add_suffix_on_collision=add_suffix_on_collision,
            **{name: value for name, value in given.items() if value is not None},
        )
        arguments = task_arguments(task_args, inherited_defaults(self.dag, self.parent_group, self.default_args))
        prefix = "" if self.prefix_group_id else f"{self._group_id}_"
        with self:
            self.fan_out = RayFanOutOperator(
                task_id=f"{prefix}fan_out",
                python_callable=python_callable,
                ray_config=ray_config,
                op_kwargs=op_kwargs,
                returns=returns,
                ray_conn_id=ray_conn_id,
                secrets=secrets,
                parameters_file=parameters_file,
                startup_timeout_s=startup_timeout_s,
                run_timeout_s=run_timeout_s,
                attach_timeout_s=attach_timeout_s,
                on_change=on_change,
                ray_node_id=self.group_id,
                **arguments["fan_out"],
            )
            work = self.fan_out.known_work
            operator, name = _execution(work)
            self.execution = operator(
                task_id=f"{prefix}{name}",
                job=self.fan_out.output,
                deferrable=deferrable,
                poll_interval_s=poll_interval_s,
                grace_s=grace_s,
                on_kill=on_kill,
                **arguments["execution"],
            )
            with placed("node", str(self.group_id), self.dag.dag_id if self.dag is not None else None):
                check_on_kill(self.execution.kill_policy, self.fan_out.known_address)
            self.fan_in = RayFanInOperator(task_id=f"{prefix}fan_in", job=self.execution.output, **arguments["fan_in"])
        self.fan_in.known = KnownOutput(
            str(self.group_id), tuple(self.fan_out.returns), self.fan_out.hyperparameters, work
        )

    def __getattr__(self, name: str) -> Any:
        """Return the execution task by its own name: `tune`, `train` or `run`."""
        execution = self.__dict__.get("execution")
        if execution is None or name not in ("tune", "train", "run"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _, own = _execution(self.fan_out.known_work)
        if name != own:
            what = (
                "runs what its config says when it is known"
                if self.fan_out.known_work is None
                else (f"runs a {self.fan_out.known_work}")
            )
            raise AttributeError(
                f"node {self.group_id!r} {what}: its execution task is {own!r}; node.execution is it by any name"
            )
        return execution

    @property
    def outputs(self) -> NodeOutput:
        """The references of the function's outputs by name: `node.outputs["model"]`."""
        return self.output["outputs"]

    @property
    def metrics(self) -> NodeOutput:
        """The metrics of a training's last report, or of what a function returned: `node.metrics["loss"]`."""
        return self.output["metrics"]

    @property
    def training(self) -> NodeOutput:
        """How a training ended: `node.training["ending"]`, `["reports"]`, `["world_size"]`, `["best_step"]`, …"""
        return self.output["training"]

    @property
    def value(self) -> NodeOutput:
        """What a function returned, where that is small JSON."""
        return self.output["value"]

    @property
    def results(self) -> NodeOutput:
        """The reference of a map's results, in the order of its items."""
        return self.output["results"]

    @property
    def failed(self) -> NodeOutput:
        """The indexes of a map's failed items, the first of many."""
        return self.output["failed"]

    @property
    def items(self) -> NodeOutput:
        """How many of a map's items ended how: `node.items["succeeded"]`, `["failed"]`, `["ending"]`, …"""
        return self.output["items"]

    @property
    def best_trial(self) -> NodeOutput:
        """The id of the best trial."""
        return self.output["best_trial"]

    @property
    def best_config(self) -> NodeOutput:
        """The hyperparameters of the best trial: `node.best_config["learning_rate"]`."""
        return self.output["best_config"]

    @property
    def best_metrics(self) -> NodeOutput:
        """The metrics of the best trial, or of a training's best report: `node.best_metrics["accuracy"]`."""
        return self.output["best_metrics"]

    @property
    def front(self) -> NodeOutput:
        """With several metrics: the reference of the trials that no other beats, each with its outputs."""
        return self.output["front"]

    @property
    def trials(self) -> NodeOutput:
        """The reference of the table of all trials."""
        return self.output["trials"]

    @property
    def steps(self) -> NodeOutput:
        """The reference of the table of every step that a trial, or a training, reported."""
        return self.output["steps"]

    @property
    def completion(self) -> NodeOutput:
        """How many of how many trials ended how, and why the search ended: `node.completion["finished"]`."""
        return self.output["completion"]

    @property
    def run_record(self) -> NodeOutput:
        """The reference of the run record."""
        return self.output["run_record"]


@completed
def ray_node(
    group_id: str,
    *,
    python_callable: Callable[..., Any] | str,
    ray_config: str | Path | Mapping[str, Any] | RayConfig,
    op_kwargs: Mapping[str, Any] | None = None,
    returns: Iterable[Return | str] = (),
    ray_conn_id: str = DEFAULT_CONN_ID,
    secrets: Sequence[str] = (),
    parameters_file: str | Path | None = None,
    deferrable: bool | None = None,
    poll_interval_s: float = 2.0,
    grace_s: float = 300.0,
    startup_timeout_s: float | None = None,
    run_timeout_s: float | None = None,
    attach_timeout_s: float | None = DEFAULT_ATTACH_TIMEOUT_S,
    on_kill: OnKill = "stop",
    on_change: OnChange = "refuse",
    default_args: Mapping[str, Any] | None = None,
    prefix_group_id: bool = True,
    parent_group: TaskGroup | None = None,
    dag: DAG | None = None,
    group_display_name: str = "",
    tooltip: str = "",
    doc_md: str | None = None,
    ui_color: str = "CornflowerBlue",
    ui_fgcolor: str = "#000",
    add_suffix_on_collision: bool = False,
    **task_args: Unpack[TaskArguments],
) -> RayNode:
    """Return a RayNode, in the DAG and group that are open here; the parameters are RayNode's."""
    return RayNode(
        group_id,
        python_callable=python_callable,
        ray_config=ray_config,
        op_kwargs=op_kwargs,
        returns=returns,
        ray_conn_id=ray_conn_id,
        secrets=secrets,
        parameters_file=parameters_file,
        deferrable=deferrable,
        poll_interval_s=poll_interval_s,
        grace_s=grace_s,
        startup_timeout_s=startup_timeout_s,
        run_timeout_s=run_timeout_s,
        attach_timeout_s=attach_timeout_s,
        on_kill=on_kill,
        on_change=on_change,
        default_args=default_args,
        prefix_group_id=prefix_group_id,
        parent_group=parent_group,
        dag=dag,
        group_display_name=group_display_name,
        tooltip=tooltip,
        doc_md=doc_md,
        ui_color=ui_color,
        ui_fgcolor=ui_fgcolor,
        add_suffix_on_collision=add_suffix_on_collision,
        **task_args,
    )
