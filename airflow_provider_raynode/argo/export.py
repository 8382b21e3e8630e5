"""`raynode argo export`: a DAG file to linted YAML, or one report of all that stands in the way."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_raynode import __version__
from airflow_provider_raynode.argo.checks import (
    ALLOWABLE,
    RefusedError,
    check_allowed,
    find_refusals,
    ignored,
    without_earlier_runs,
)
from airflow_provider_raynode.argo.compile import compile_dag
from airflow_provider_raynode.argo.dag_file import load_dag
from airflow_provider_raynode.argo.earlier_runs import asks_for_earlier_runs
from airflow_provider_raynode.argo.import_path import dags_root
from airflow_provider_raynode.argo.needs import variables_given
from airflow_provider_raynode.argo.ray_job_checks import ray_job_refusals, ray_job_warnings
from airflow_provider_raynode.argo.schedule import Kind, Schedule, schedule_of
from airflow_provider_raynode.argo.settings import ArgoSettings
from airflow_provider_raynode.argo.slots import slot_notes, slot_refusals
from airflow_provider_raynode.argo.yaml_writer import write_yaml
from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from airflow_provider_raynode.argo.lint import Finding

KindOption = Literal["auto", "workflow", "template", "cron"]
RayOption = Literal["submit", "rayjob"]


class ExportError(RayNodeError):
    """What the export wrote is not valid Argo: a setting, or a mistake of the exporter."""


@dataclass(frozen=True)
class Export:
    """The YAML of a DAG, and what its reader should know."""

    text: str
    warnings: tuple[str, ...] = ()


def export_dag_file(
    dag_file: str | Path,
    *,
    dag_id: str | None = None,
    settings: str | Path | Mapping[str, Any] | ArgoSettings | None = None,
    kind: KindOption = "auto",
    ray: RayOption = "submit",
    allow: Iterable[str] = (),
    dags_folder: str | Path | None = None,
) -> Export:
    """Return the manifests of a DAG file as YAML.

    :param dag_id: which DAG, where the file holds several.
    :param settings: path of the settings file, or what it holds.
    :param kind: the kind of object; `auto` takes what the schedule asks for.
    :param ray: where a Ray node's job runs: `submit`, as in Airflow, or `rayjob`, a RayJob of its own in Kubernetes.
    :param allow: features to downgrade from refusals to warnings.
    :param dags_folder: the folder that the file's imports begin in, and that it keeps its place in; else Airflow's own.
    :raises DagFileError: the DAG cannot be loaded.
    :raises ConfigError: the settings are wrong.
    :raises RefusedError: the DAG has what Argo cannot do.
    :raises ExportError: the result does not pass the lint.
    """
    dag = load_dag(dag_file, dag_id, dags_folder=dags_folder)
    return export_dag(dag, Path(dag_file), settings=settings, kind=kind, ray=ray, allow=allow, dags_folder=dags_folder)


def export_dag(
    dag: DAG,
    dag_file: Path,
    *,
    settings: str | Path | Mapping[str, Any] | ArgoSettings | None = None,
    kind: KindOption = "auto",
    ray: RayOption = "submit",
    allow: Iterable[str] = (),
    dags_folder: str | Path | None = None,
) -> Export:
    """Return the manifests of a live DAG as YAML; the parameters are those of `export_dag_file`."""
    allowed = check_allowed(allow)
    chosen = settings if isinstance(settings, ArgoSettings) else ArgoSettings.load(settings)
    chosen = chosen.placed(dag_file, dags_root(dag_file, dags_folder))
    chosen.check_names(dag.task_ids, _group_ids(dag))
    schedule = _schedule(dag, kind)
    found = find_refusals(dag, schedule, pools=chosen.pools)
    if ray == "rayjob":
        found += ray_job_refusals(dag, chosen)
    found += slot_refusals(dag, chosen.pools, chosen.parallelism)
    asks = asks_for_earlier_runs(dag, dag_file) if chosen.record_runs is None else chosen.record_runs
    if asks and chosen.claims_catalog:
        found.append(without_earlier_runs())
    refused = [each for each in found if each.feature not in allowed]
    if refused:
        raise RefusedError(dag.dag_id, refused)
    warnings = [f"{each.task_id or dag.dag_id}: {each.feature}: {ALLOWABLE[each.feature]}" for each in found]
    warnings += [
        *schedule.notes,
        *ignored(dag),
        *slot_notes(dag, chosen.pools),
        *chosen.warnings(),
        *chosen.account_warnings(),
    ]
    if chosen.secrets:
        warnings += chosen.without_task(variables_given(dag, chosen))
    if ray == "rayjob":
        warnings += ray_job_warnings(dag, chosen)
    manifests = compile_dag(
        dag,
        schedule,
        chosen,
        kind=_kind(kind, schedule, dag),
        pipeline_file=chosen.pipeline_file(dag_file),
        dags_folder=chosen.dags_folder(dag_file),
        ray_jobs=ray == "rayjob",
        record_runs=asks and not chosen.claims_catalog,
    )
    manifests += chosen.manifests(dag_file)
    kuberay = ", with KubeRay 1.6 or newer" if ray == "rayjob" else ""
    header = (
        f"DAG {dag.dag_id} of {dag_file.name}, by airflow-provider-raynode {__version__} for Argo Workflows 3.7.16, "
        f"4.0.7\nor newer{kuberay}. Not to be edited: change the DAG or the settings, and export again."
    )
    text = "---\n".join(
        write_yaml(manifest, header=header if number == 0 else "") for number, manifest in enumerate(manifests)
    )
    return Export(text, (*warnings, *_linted(text, dag.dag_id)))


def command(
    dag_file: str,
    *,
    dag_id: str | None,
    settings: str | None,
    output: str | None,
    kind: KindOption,
    ray: RayOption,
    allow: Iterable[str],
    dags_folder: str | None = None,
) -> int:
    """Write the YAML to `output`, else to stdout, and the warnings to stderr; return the exit code."""
    try:
        export = export_dag_file(
            dag_file, dag_id=dag_id, settings=settings, kind=kind, ray=ray, allow=allow, dags_folder=dags_folder
        )
    except RefusedError as error:
        print(f"raynode: {error}", file=sys.stderr)
        return 1
    for warning in export.warnings:
        print(f"raynode: warning: {warning}", file=sys.stderr)
    if output is None or output == "-":
        sys.stdout.write(export.text)
        return 0
    path = Path(output).expanduser()
    try:
        path.write_text(export.text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{output}: cannot be written ({error.strerror})") from error
    print(f"{path}: {len(export.text):,} bytes", file=sys.stderr)
    return 0


def _schedule(dag: DAG, kind: KindOption) -> Schedule:
    """Return the schedule to export: none where somebody else than a clock of Argo's starts the runs."""
    schedule = schedule_of(dag)
    if not schedule.repeats or kind not in ("template", "workflow"):
        return schedule
    timetable = type(dag.timetable).__name__
    note = f"--kind {kind}: the schedule ({timetable}) is left out: runs begin when somebody submits them"
    return Schedule("template" if kind == "template" else "workflow", notes=(note,))


def _kind(kind: KindOption, schedule: Schedule, dag: DAG) -> Kind:
    if kind == "auto":
        return schedule.kind
    if kind == "cron" and not schedule.crons:
        raise ExportError(
            f"--kind cron: {dag.dag_id} has no cron schedule (it is {dag.schedule!r}): give the DAG one, or use "
            "--kind template"
        )
    return kind


def _linted(text: str, dag_id: str) -> list[str]:
    from airflow_provider_raynode.argo.lint import lint_text

    findings: list[Finding] = lint_text(text, dag_id)
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        lines = "\n".join(f"  {each}" for each in errors)
        raise ExportError(f"the export of {dag_id} does not pass the lint, nothing was written:\n{lines}")
    return [str(each) for each in findings]


def _group_ids(dag: DAG) -> list[str]:
    return [each for each in dag.task_group_dict if each]
