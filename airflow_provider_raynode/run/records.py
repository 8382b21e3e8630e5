"""`raynode runs` and `raynode show`: the run records of a catalog, as tables in the terminal."""

from __future__ import annotations

import difflib
import json
import os
import sys
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.operators._progress import clock, short
from airflow_provider_raynode.record import RunRecord, find_records
from airflow_provider_raynode.run.environment import DEFAULT_HOME
from airflow_provider_raynode.run.results import place
from airflow_provider_raynode.runtime.tables import metric_column

if TYPE_CHECKING:
    import pandas as pd

_STYLES = {"succeeded": "green", "failed": "red", "stopped": "yellow", "lost": "red"}
_SHOWN_TRIALS = 20


class NoSuchRunError(RayNodeError):
    """No record is of the run that was asked for."""


def list_runs(dag_id: str | None, catalog_uri: str | None, *, limit: int, as_json: bool) -> int:
    """Print a line per attempt, the latest first."""
    catalog = _catalog(catalog_uri)
    records = find_records(catalog, dag_id)[:limit]
    if as_json:
        print(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return 0
    if not records:
        what = f"of the DAG {dag_id!r} " if dag_id else ""
        raise NoSuchRunError(f"no run {what}is recorded in {catalog.uri}; --catalog URI names another catalog")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("DAG", "run", "node", "attempt", "outcome", "done", "best", "took", "ended"):
        table.add_column(name, justify="right" if name in ("attempt", "done", "took") else "left", overflow="fold")
    for record in records:
        table.add_row(
            record.dag_id,
            record.run_id,
            _node(record),
            str(record.attempt),
            Text(record.outcome, style=_STYLES[record.outcome]),
            _done(record),
            _best(record),
            clock(record.seconds),
            record.ended.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        )
    _console().print(table)
    return 0


def show_run(run: str, catalog_uri: str | None, *, node: str | None, attempt: int | None, whole: bool) -> int:
    """Print one record with its trials, or the steps of a training."""
    catalog = _catalog(catalog_uri)
    record = _find(run, catalog, node, attempt)
    console = _console()
    title = (f"{record.dag_id} / {record.run_id} / {_node(record)}", "bold")
    console.print(Text.assemble(title, f"  attempt {record.attempt}  ", (record.outcome, _STYLES[record.outcome])))
    for name, value in _facts(record):
        console.print(Text.assemble((f"  {name:<12}", "bright_black"), f"  {value}"), soft_wrap=True)
    if record.failure is not None:
        console.print(Text(f"\n{record.failure.type}: {record.failure.message}", style="red"), soft_wrap=True)
        console.print(Text(record.failure.traceback.rstrip()), soft_wrap=True)
    for warning in record.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    if record.trials is not None:
        _show_trials(console, catalog.load(record.trials), record, whole=whole)
    elif record.steps is not None:
        _show_table(console, catalog.load(record.steps), whole=whole, last=True)
    return 0


def _find(run: str, catalog: Catalog, node: str | None, attempt: int | None) -> RunRecord:
    records = find_records(catalog)
    found = [record for record in records if run in _names(record)]
    if not found:
        near = difflib.get_close_matches(run, {name for record in records for name in _names(record)}, n=3, cutoff=0.4)
        hint = f"; the nearest: {', '.join(near)}" if near else f"; `raynode runs` lists those of {catalog.uri}"
        raise NoSuchRunError(f"no run {run!r} is recorded{hint}")
    if node is not None:
        found = [record for record in found if record.node_id == node]
    if attempt is not None:
        found = [record for record in found if record.attempt == attempt]
    if not found:
        raise NoSuchRunError(f"the run {run!r} has no record of --node {node} --attempt {attempt}")
    nodes = sorted({_node(record) for record in found})
    if len(nodes) > 1:
        raise NoSuchRunError(f"the run {run!r} has several nodes: name one as DAG/RUN/NODE ({', '.join(nodes)})")
    return max(found, key=lambda record: record.attempt)


def _names(record: RunRecord) -> set[str]:
    whole = f"{record.dag_id}/{record.run_id}/{record.node_id}"
    return {
        record.run_id,
        record.submission_id,
        whole,
        f"{whole}/{record.map_index}",
        record.dag_id + "/" + record.run_id,
    }


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    code = record.code
    commit = f"{code.git_commit[:12]}{' (with changes)' if code.git_dirty else ''}" if code.git_commit else "-"
    facts = [
        ("job", f"{record.submission_id} at {record.address}"),
        ("ended", f"{record.ended.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC after {clock(record.seconds)}"),
        ("phases", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.timings_s.items()) or "-"),
        *_work(record),
        ("versions", _versions(record)),
        ("code", f"commit {commit}, function {(code.function_sha256 or '-')[:12]}"),
        ("cluster", ", ".join(f"{name} {amount:g}" for name, amount in sorted(record.resources.items())) or "-"),
        ("spec", f"{place(record.spec['uri'])}  sha256 {record.spec['sha256'][:12]}"),
        ("files", place(record.files)),
    ]
    if record.search_of is not None:
        facts.insert(3, ("went on with", f"the {record.work} of attempt {record.search_of}{_restored(record)}"))
    if record.retries:
        earlier = ", ".join(f"{each.attempt}: {each.outcome or 'no record'}" for each in record.retries)
        facts.insert(3, ("attempts", earlier))
    if record.front is not None:
        facts.append(("front", place(str(record.front["uri"]))))
    facts += [(f"output {name}", place(str(ref["uri"]))) for name, ref in record.outputs.items()]
    return facts


def _show_trials(console: Console, frame: pd.DataFrame, record: RunRecord, *, whole: bool) -> None:
    metric = metric_column(record.metric or "")
    if metric in frame.columns:
        frame = frame.sort_values(metric, ascending=record.mode == "min", na_position="last", kind="stable")
    _show_table(console, frame, whole=whole)


def _show_table(console: Console, frame: pd.DataFrame, *, whole: bool, last: bool = False) -> None:
    """Print the first rows of a table, or the last ones."""
    shown = frame if whole else frame.tail(_SHOWN_TRIALS) if last else frame.head(_SHOWN_TRIALS)
    # A column that says nothing of any trial is left out.
    columns = [name for name in frame.columns if name != "config" and not frame[name].isna().all()]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name.removeprefix("config/"), overflow="fold")
    for _, row in shown.iterrows():
        table.add_row(*(_cell(row[name]) for name in columns))
    console.print()
    console.print(table)
    if len(shown) < len(frame):
        console.print(f"… {len(frame) - len(shown)} more: --all")


def _cell(value: Any) -> str:
    import pandas as pd

    if hasattr(value, "tolist"):
        value = value.tolist()
    return short(value) if isinstance(value, list) or not pd.isna(value) else ""


def _node(record: RunRecord) -> str:
    return record.node_id if record.map_index < 0 else f"{record.node_id} [{record.map_index}]"


def _work(record: RunRecord) -> list[tuple[str, str]]:
    """Return what the work came to, by its kind."""
    if record.work == "training":
        end = record.training
        workers = f" on {end.world_size} workers" if end and end.world_size else ""
        restarts = f", {end.restarts} restarts" if end and end.restarts else ""
        return [
            ("training", f"{end.reports} reports{workers}{restarts}" if end else "-"),
            ("ended as", f"{end.ending}{f': {end.reason}' if end.reason else ''}" if end else "-"),
            ("last", _metrics(record.metrics)),
            ("best", _best(record)),
        ]
    if record.work == "map":
        items = record.items
        failed = f" ({', '.join(map(str, record.failed[:20]))}{', …' if len(record.failed) > 20 else ''})"
        counts = f"{items.succeeded} of {items.items} done, {items.failed} failed" if items else "-"
        return [
            ("items", counts + (failed if record.failed else "")),
            ("map ended", (items.reason or items.ending) if items else "-"),
        ]
    if record.work == "function":
        return [("value", f"{record.value!r:.200}"), ("metrics", _metrics(record.metrics))]
    return [
        ("trials", record.completion.summary() if record.completion else "-"),
        ("search ended", record.completion.reason if record.completion else "-"),
        ("best", _best(record)),
        ("config", _config(record)),
    ]


def _restored(record: RunRecord) -> str:
    if record.work == "training":
        begun = None if record.training is None else record.training.resumed_from
        return "" if begun is None else f", from its report {begun}"
    return f", {record.restored} {'items' if record.work == 'map' else 'trials'} finished"


def _metrics(metrics: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {short(value)}" for name, value in (metrics or {}).items()) or "-"


def _done(record: RunRecord) -> str:
    """Return how many trials, reports or items there are."""
    if record.training is not None:
        return f"{record.training.reports} reports"
    if (items := record.items) is not None:
        of = "" if items.succeeded == items.items else f" of {items.items}"
        return f"{items.succeeded}{of} items" + (f" ({items.failed} failed)" if items.failed else "")
    account = record.completion
    if account is None:
        return "-"
    done = account.finished + account.early_stopped
    of = "" if account.asked is None or account.asked == done else f" of {account.asked}"
    return f"{done}{of}" + (f" ({account.failed} failed)" if account.failed else "")


def _best(record: RunRecord) -> str:
    best = record.best.metrics if record.best is not None else record.best_metrics
    if best is None or record.metric is None:
        return "-"
    step = "" if record.best_step is None else f" (report {record.best_step})"
    return f"{record.metric} {short(best.get(record.metric))}{step}"


def _config(record: RunRecord) -> str:
    if record.best is None:
        return "-"
    return ", ".join(f"{name}={short(value)}" for name, value in record.best.config.items())


def _versions(record: RunRecord) -> str:
    there, here = record.versions, record.airflow
    parts = [f"Airflow {record.airflow_version}"] if record.airflow_version else []
    parts += [f"Ray {there.ray}, Python {there.python}, package {there.package}"] if there else []
    parts += [f"Airflow's side: Python {here.python}, package {here.package}"] if here else []
    return "; ".join(parts) or "-"


def _console() -> Console:
    # In a pipe nothing is cut at a width that nobody has.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 220, no_color=not sys.stdout.isatty())


def _catalog(uri: str | None) -> Catalog:
    from airflow_provider_raynode.hooks.catalog import catalog_for

    own = Path(DEFAULT_HOME) / "raynode_catalog"
    if uri is None and "AIRFLOW_HOME" not in os.environ and own.is_dir():
        uri = str(own.absolute())  # that of `raynode run` in this folder
    catalog = catalog_for(uri)
    try:
        there = catalog.filesystem.exists(catalog.filesystem._strip_protocol(catalog.uri))
    except OSError as error:
        raise CatalogError(f"{catalog.uri} cannot be read: {error}") from error
    if not there:
        raise NoSuchRunError(f"there is no catalog at {catalog.uri}: --catalog URI names another")
    return catalog
