"""Whether a cluster sees a folder of this machine: yes, no, or not told yet by one that has just begun."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from servers import Answer, as_json, dashboard, node, serving

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.exceptions import ClusterError, ConfigError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.operators import _target

HERE = {"hostname": socket.gethostname(), "raylet": {"nodeId": "n1"}}
ELSEWHERE = {"hostname": "elsewhere", "raylet": {"nodeId": "n1"}}
UNKNOWN = {"raylet": {"nodeId": "n1"}}


def starting(*summaries: list[Any], nodes: list[Any] | None = None) -> Any:
    """A dashboard that tells one after another; the last for ever."""
    answer = dashboard(nodes=[node("n1", "127.0.0.1", CPU=1)] if nodes is None else nodes)
    left = list(summaries)

    def changing(request: Any, body: bytes) -> Answer:
        if request.path.startswith("/nodes"):
            return as_json({"data": {"summary": left.pop(0) if len(left) > 1 else left[0]}})
        return answer(request, body)

    return changing


@pytest.mark.parametrize(
    ("summary", "expected"), [([HERE], True), ([ELSEWHERE], False), ([UNKNOWN], None), ([], None)], ids=str
)
def test_what_a_dashboard_tells(summary: list[Any], expected: bool | None) -> None:
    with serving(starting(summary)) as url:
        assert RayHook(address=url).cluster_info().is_this_host is expected


def test_no_node_yet() -> None:
    with serving(starting([], nodes=[])) as url:
        assert RayHook(address=url).cluster_info().is_this_host is None


def test_one_node_elsewhere_is_enough() -> None:
    nodes = [node("n1", "127.0.0.1"), node("n2", "10.0.0.2")]
    with serving(starting([UNKNOWN, {"hostname": "elsewhere", "raylet": {"nodeId": "n2"}}], nodes=nodes)) as url:
        assert RayHook(address=url).cluster_info().is_this_host is False


def check(url: str, root: Path) -> str | None:
    config = RayConfig.model_validate({"ray_tune": {"metric": "score", "mode": "max", "search_space": {"x": 1}}})
    return _target.check_target("json:dumps", config, RayHook(address=url), Catalog(str(root)))


def test_fan_out_asks_a_cluster_that_has_just_begun_again(tmp_path: Path) -> None:
    with serving(starting([], [UNKNOWN], [HERE])) as url:
        assert check(url, tmp_path) == "2.60.0"
    with serving(starting([], [ELSEWHERE])) as url, pytest.raises(ConfigError, match="is a folder of this machine"):
        check(url, tmp_path)


def test_a_cluster_that_never_tells_is_tried_again_by_airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_target, "_NODES_TIMEOUT_S", 0.5)
    with (
        serving(starting([UNKNOWN])) as url,
        pytest.raises(ClusterError, match=r"not told the host names of its nodes for 0\.5 s.*shared: true"),
    ):
        check(url, tmp_path)
