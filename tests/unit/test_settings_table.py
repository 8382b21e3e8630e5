"""The table of which setting counts where: every setting is in it, so a new one has to be thought through."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from airflow_provider_raynode.argo.settings import PodOverrides
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.cluster import CatalogSection, RayCluster
from airflow_provider_raynode.config.kuberay import KubeRay
from airflow_provider_raynode.config.resources import Resources
from airflow_provider_raynode.config.runtime_env import RuntimeEnv
from airflow_provider_raynode.config.train import RayTrain
from airflow_provider_raynode.hooks._settings import EXTRAS
from airflow_provider_raynode.task_groups._arguments import TaskArguments
from airflow_provider_raynode.task_groups.ray_node import RayNode

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
# Of a node: what Airflow's TaskGroup takes, and where nothing runs differently.
AIRFLOWS = {
    "self", "group_id", "prefix_group_id", "parent_group", "dag", "group_display_name", "tooltip", "doc_md", "ui_color",
    "ui_fgcolor", "add_suffix_on_collision", "task_args", "group_kwargs",
}  # fmt: skip


def rows(title: str, table: str = "") -> dict[str, list[str]]:
    """The rows of a section's table by their settings; `table` is the head of its first column where it has several."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]
    if table:
        section = section.split(f"\n| {table} |")[1].split("\n\n")[0]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([^`]+)`", cells[0]) if line.startswith("| `") else ():
            found[name] = cells[1:]
    return found


def test_of_the_config() -> None:
    table = rows("The config")
    sections = {
        "ray_cluster": RayCluster, "ray_cluster.runtime_env": RuntimeEnv, "ray_train": RayTrain,
        "default_resources": Resources, "catalog": CatalogSection,
    }  # fmt: skip
    expected = {f"{path}.{key}" for path, model in sections.items() for key in model.model_fields}
    expected |= set(RayConfig.model_fields) | {"ray_cluster.runtime_env.env_vars.RAY_JOB_STOP_…"}
    assert set(table) == expected - {*sections}
    assert all(len(cells) == 3 and all(cells) for cells in table.values())


def test_of_the_connection() -> None:
    assert set(rows("The connection")) == {*EXTRAS, "host", "port", "password", "login", "schema"}


def test_of_the_node() -> None:
    assert set(rows("The node")) == set(inspect.signature(RayNode.__init__).parameters) - AIRFLOWS - {
        *TaskArguments.__annotations__
    }


def test_what_the_table_says_of_the_embedded_ray_is_what_the_config_refuses() -> None:
    from airflow_provider_raynode.config.runtime_env import _NOT_EMBEDDED

    prefix = "ray_cluster.runtime_env."
    refused = {
        name.removeprefix(prefix) for name, cells in rows("The config").items() if cells[0].startswith("refused")
    }
    assert {name for name in refused if "." not in name} == {*_NOT_EMBEDDED}


def test_of_a_ray_job() -> None:
    assert set(rows("A RayJob", "Of `ray_cluster.kuberay`")) == set(KubeRay.model_fields)
    assert set(rows("A RayJob", "Of the export's settings")) == set(PodOverrides.model_fields)
    # Where a task of a RayJob differs from no other.
    alike = {
        "doc", "doc_json", "doc_md", "doc_rst", "doc_yaml", "end_date", "start_date", "inlets", "owner", "params",
        "ignore_first_depends_on_past", "map_index_template", "render_template_as_native_obj", "task_display_name",
        "wait_for_past_depends_before_skipping",
    }  # fmt: skip
    assert set(rows("A RayJob", "Of the tasks")) == set(TaskArguments.__annotations__) - alike
