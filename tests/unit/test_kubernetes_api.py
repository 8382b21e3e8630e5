"""Kubernetes' API over real HTTPS: tokens that are replaced, rights, what is out of order, names of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_stand_in import Kubernetes

from airflow_provider_raynode.kubernetes_api import KubernetesApi, KubernetesApiError, Place, patiently

PODS = Place("", "v1", "pods", "argo")
JOB = Place("ray.io", "v1", "rayjobs", "argo", "a")


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    with Kubernetes(tmp_path) as kubernetes:
        for name, value in kubernetes.env.items():
            monkeypatch.setenv(name, value)
        # The address is the cluster's own, whatever the pod is told of the world outside.
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        yield kubernetes


def test_objects_are_read_listed_by_label_and_deleted(kubernetes: Kubernetes) -> None:
    kubernetes.put("rayjobs", {"metadata": {"name": "a", "labels": {"x/y": "1"}}})
    kubernetes.put("rayjobs", {"metadata": {"name": "b", "labels": {"x/y": "2"}}})
    api = KubernetesApi.of_pod()
    assert api.namespace == "argo"
    assert api.get(JOB)["metadata"]["name"] == "a"
    (found,) = api.get(Place("ray.io", "v1", "rayjobs", "argo", labels={"x/y": "2"}))["items"]
    assert found["metadata"]["name"] == "b"
    api.delete(JOB, uid="another object's")
    assert kubernetes.names("rayjobs") == ["a", "b"], "a later object of the same name is left alone"
    for _ in range(2):
        api.delete(JOB)
    assert kubernetes.names("rayjobs") == ["b"]


def test_a_replaced_token_is_read_anew(kubernetes: Kubernetes) -> None:
    api = KubernetesApi.of_pod()
    for _ in range(3):
        assert api.get(PODS) == {"items": []}
        kubernetes.rotate()


def test_a_missing_right_names_the_line_of_the_role(kubernetes: Kubernetes) -> None:
    kubernetes.rights = {("get", "rayjobs")}
    with pytest.raises(KubernetesApiError) as refused:
        KubernetesApi.of_pod().delete(JOB)
    assert 'User "system:serviceaccount:argo:raynode" cannot delete resource "rayjobs"' in str(refused.value)
    assert "{apiGroups: ['ray.io'], resources: [rayjobs], verbs: [delete]}" in str(refused.value)
    assert (refused.value.status, refused.value.passing) == (403, False)


def test_what_is_not_there_is_named_by_the_answer(kubernetes: Kubernetes) -> None:
    with pytest.raises(KubernetesApiError) as missing:
        KubernetesApi.of_pod().get(JOB)
    assert (missing.value.status, missing.value.found) == (404, "a")


@pytest.mark.parametrize("status", [500, 503, 429])
def test_an_api_out_of_order_is_asked_again(kubernetes: Kubernetes, status: int) -> None:
    api, waits = KubernetesApi.of_pod(), [0.0]
    kubernetes.faults = [status, status]
    found = patiently(lambda: api.get(PODS), timeout_s=60, sleep=waits.append, clock=lambda: sum(waits))
    assert (found, waits) == ({"items": []}, [0.0, 0.5, 1.0])
    kubernetes.faults = [status] * 50
    with pytest.raises(KubernetesApiError, match=f"with {status}"):
        patiently(lambda: api.get(PODS), timeout_s=10, sleep=waits.append, clock=lambda: sum(waits))


def test_an_api_that_is_not_there(kubernetes: Kubernetes) -> None:
    api = KubernetesApi.of_pod()
    kubernetes.__exit__()
    with pytest.raises(KubernetesApiError, match="does not answer") as error:
        api.get(PODS)
    assert error.value.passing


def test_a_server_with_another_certificate_is_not_trusted(kubernetes: Kubernetes, tmp_path: Path) -> None:
    with Kubernetes(tmp_path / "other") as other:
        (kubernetes.folder / "ca.crt").write_bytes((other.folder / "ca.crt").read_bytes())
        with pytest.raises(KubernetesApiError, match="certificate"):
            KubernetesApi.of_pod().get(PODS)


def test_outside_of_a_pod(kubernetes: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    (kubernetes.folder / "token").unlink()
    with pytest.raises(KubernetesApiError, match="automountServiceAccountToken"):
        KubernetesApi.of_pod()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(KubernetesApiError, match="no pod of a Kubernetes cluster"):
        KubernetesApi.of_pod()
