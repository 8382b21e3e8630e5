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
    for name in ("DAG", "run", "node", "attempt", "outcome", "trials", "best", "took", "ended"):
        table.add_column(name, justify="right" if name in ("attempt", "trials", "took") else "left", overflow="fold")
    for record in records:
        table.add_row(
            record.dag_id,
            record.run_id,
            _node(record),
            str(record.attempt),
            Text(record.outcome, style=_STYLES[record.outcome]),
            _trials(record),
            _best(record),
            clock(record.seconds),
            record.ended.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        )
    _console().print(table)
    return 0


def show_run(run: str, catalog_uri: str | None, *, node: str | None, attempt: int | None, whole: bool) -> int:
    """Print one record with its trials."""
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
        ("trials", record.completion.summary() if record.completion else "-"),
        ("search ended", record.completion.reason if record.completion else "-"),
        ("best", _best(record)),
        ("config", _config(record)),
        ("versions", _versions(record)),
        ("code", f"commit {commit}, function {(code.function_sha256 or '-')[:12]}"),
        ("cluster", ", ".join(f"{name} {amount:g}" for name, amount in sorted(record.resources.items())) or "-"),
        ("spec", f"{place(record.spec['uri'])}  sha256 {record.spec['sha256'][:12]}"),
        ("files", place(record.files)),
    ]
    if record.search_of is not None:
        facts.insert(
            3, ("went on with", f"the search of attempt {record.search_of}, {record.restored} trials finished")
        )
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
    shown = frame if whole else frame.head(_SHOWN_TRIALS)
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


def _trials(record: RunRecord) -> str:
    account = record.completion
    if account is None:
        return "-"
    done = account.finished + account.early_stopped
    of = "" if account.asked is None or account.asked == done else f" of {account.asked}"
    return f"{done}{of}" + (f" ({account.failed} failed)" if account.failed else "")


def _best(record: RunRecord) -> str:
    if record.best is None or record.metric is None:
        return "-"
    return f"{record.metric} {short(record.best.metrics.get(record.metric))}"


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
