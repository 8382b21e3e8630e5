"""What `raynode run` shows at the end: per Ray node what became of it, and where the results lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from airflow_provider_raynode.operators._progress import short

if TYPE_CHECKING:
    from airflow.sdk import DAG
    from rich.console import Console


def show_results(console: Console, dag: DAG, dag_run: Any) -> None:
    """Print a block per Ray node of the run that ended."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    from airflow_provider_raynode.operators.fan_in import RayFanInOperator

    fan_ins = [task.task_id for task in dag.tasks if isinstance(task, RayFanInOperator)]
    with create_session() as session:
        rows = session.execute(
            XComModel.get_many(run_id=dag_run.run_id, key="return_value", task_ids=fan_ins, dag_ids=dag.dag_id)
            .with_only_columns(XComModel.task_id, XComModel.map_index, XComModel.value)
            .order_by(None)
            .order_by(XComModel.task_id, XComModel.map_index)
        ).all()
    for task_id, map_index, value in rows if fan_ins else ():
        node = task_id.rpartition(".")[0] or task_id
        _show(console, node if map_index < 0 else f"{node} [{map_index}]", XComModel.deserialize_value(_Raw(value)))


def place(uri: str) -> str:
    """Return a path below the working directory as relative to it, everything else as it is."""
    path = Path(uri)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else uri


class _Raw:
    """The shape that XComModel.deserialize_value reads."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _show(console: Console, node: str, result: dict[str, Any]) -> None:
    console.print(Text.assemble("\n", (node, "bold"), f": {_headline(result)}"))
    rows = [("hyperparameter", name, short(value), "") for name, value in result.get("best_config", {}).items()]
    last = "last metric" if "training" in result else "metric"
    rows += [(last, name, short(value), "") for name, value in (result.get("metrics") or {}).items()]
    best = "best metric" if "training" in result else "metric"
    rows += [(best, name, short(value), "bold green") for name, value in (result.get("best_metrics") or {}).items()]
    if result.get("value") is not None:
        rows.append(("value", "", _line(result["value"]), "bold green"))
    rows += [("output", name, place(reference["uri"]), "") for name, reference in result["outputs"].items()]
    rows += [
        ("table", name, place(result[name]["uri"]), "") for name in ("front", "trials", "steps") if result.get(name)
    ]
    rows += [("record", "run", place(result["run_record"]["uri"]), "")]
    width = max(len(name) for _, name, _, _ in rows)
    for what, name, value, style in rows:
        # Whole lines, never cut: a path is there to be copied.
        line = Text.assemble((f"  {what:<14}", "bright_black"), f"  {name:<{width}}  ", (value, style))
        console.print(line, soft_wrap=True)


def _headline(result: dict[str, Any]) -> str:
    """Return what became of the node, by what its output has."""
    if "best_trial" in result:
        return f"best trial {result['best_trial']}"
    if (training := result.get("training")) is not None:
        best = f", best report {training['best_step']}" if training["best_step"] is not None else ""
        return f"training {training['ending'].replace('_', ' ')} after {training['reports']} reports{best}"
    if (items := result.get("items")) is not None:
        failed = f", {items['failed']} failed ({_some(result['failed'])})" if items["failed"] else ""
        return f"{items['succeeded']} of {items['items']} items done{failed}"
    return "the function has returned"


def _some(indexes: list[int]) -> str:
    return ", ".join(map(str, indexes[:10])) + (", …" if len(indexes) > 10 else "")


def _line(value: Any) -> str:
    text = short(value).replace("\n", " ")
    return text if len(text) <= 500 else f"{text[:500]}…"
