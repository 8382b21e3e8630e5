"""Specs, jobs, results and references under whatever comes: refused by the documented error, never half understood."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from airflow_provider_raynode.catalog import Catalog, CatalogRef
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError, SpecError
from airflow_provider_raynode.runtime.secrets import SecretsError
from airflow_provider_raynode.runtime.secrets import seal as seal_secrets
from airflow_provider_raynode.runtime.secrets import unseal as unseal_secrets
from airflow_provider_raynode.spec import (
    JobRef,
    NodeProgress,
    NodeResult,
    NodeSpec,
    RunContext,
    Versions,
    digest,
    seal,
    submission_id,
    unseal,
)

names = st.text(min_size=1, max_size=40) | st.sampled_from(
    [
        "..",
        ".",
        "../..",
        "a/../../b",
        "/etc/passwd",
        "a\x00b",
        "..\\..",
        "%2e%2e",
        "．．",
        "a" * 400,
        " ",
        "CON",
        "~",
        "a:b",
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def spec(**changes: Any) -> NodeSpec:
    fields: dict[str, Any] = {
        "submission_id": "raynode-a",
        "attempt": 1,
        "context": RunContext(dag_id="d", run_id="r", node_id="n"),
        "function": {"name": "f", "import_path": "pkg:fn", "python": "3.11.7"},
        "config": {"ray_tune": {"metric": "m", "mode": "max", "search_space": {"x": 1}}},
        "catalog_uri": "/c",
        "node_prefix": "/c/d/r/n/-1",
        "staged_by": Versions(python="3.11.7", package="0"),
    }
    return NodeSpec.model_validate({**fields, **changes})


def result() -> NodeResult:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return NodeResult(
        submission_id="raynode-a", attempt=1, spec_sha256="0" * 64, state="SUCCEEDED", started=now, ended=now,
        versions=Versions(python="3.11.7", package="0"),
    )  # fmt: skip


def damaged(data: st.DataObject, whole: bytes) -> bytes:
    """`whole` with a byte flipped, a part cut out, or bytes put in."""
    start = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "end"]))
    if kind == "flip":
        return whole[:start] + bytes([whole[start] ^ data.draw(st.integers(1, 255))]) + whole[start + 1 :]
    if kind == "cut":
        return whole[:start] + whole[start + data.draw(st.integers(1, 20)) :]
    if kind == "end":
        return whole[:start]
    return whole[:start] + data.draw(st.binary(min_size=1, max_size=8)) + whole[start:]


@settings(max_examples=800, deadline=None)
@given(data=st.data())
def test_a_damaged_spec_is_never_read(data: st.DataObject) -> None:
    whole = spec().to_bytes()
    changed = damaged(data, whole)
    assume(changed != whole)
    with pytest.raises(SpecError):
        NodeSpec.from_bytes(changed, sha256=digest(whole))


@settings(max_examples=800, deadline=None)
@given(data=st.data())
def test_a_damaged_result_is_never_read(data: st.DataObject) -> None:
    whole = seal(result())
    changed = damaged(data, whole)
    assume(changed != whole and changed.strip() != whole)
    with pytest.raises(SpecError):
        unseal(changed)


@settings(max_examples=700, deadline=None)
@given(data=st.data(), model=st.sampled_from([NodeSpec, JobRef, NodeProgress, NodeResult]))
def test_bytes_of_any_kind_are_a_contract_or_an_error(data: st.DataObject, model: Any) -> None:
    raw = data.draw(st.binary(max_size=80) | json_values.map(lambda value: json.dumps(value).encode()))
    with pytest.raises(SpecError):
        model.from_bytes(raw)


@settings(max_examples=500, deadline=None)
@given(kwargs=st.dictionaries(st.text(max_size=8), json_values, max_size=4), params=json_values)
def test_a_spec_comes_back_as_it_was(kwargs: dict[str, Any], params: Any) -> None:
    context = RunContext(dag_id="d", run_id="r", node_id="n", params={"p": params})
    one = spec(op_kwargs=kwargs, context=context)
    again = NodeSpec.from_bytes(one.to_bytes(), sha256=digest(one.to_bytes()))
    assert again == one
    assert again.to_bytes() == one.to_bytes()


@settings(max_examples=800, deadline=None)
@given(
    one=st.tuples(names, names, names, st.integers(-1, 99)), other=st.tuples(names, names, names, st.integers(-1, 99))
)
@example(one=("a", "b", "c", -1), other=("a-b", "", "c", -1))
@example(one=("a/b", "c", "d", 1), other=("a", "b/c", "d", 1))
def test_two_nodes_never_share_an_id_or_a_folder(one: Any, other: Any) -> None:
    assume(one != other and all(one[:3]) and all(other[:3]))
    ids = {submission_id(*each, 1) for each in (one, other)}
    assert len(ids) == 2
    assert all(
        len(each) <= 200 and set(each) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
        for each in ids
    )
    catalog = Catalog("/tmp/catalog")
    folders = set()
    for each in (one, other):
        try:
            folders.add(catalog.node_prefix(*each))
        except CatalogError:
            continue
    inside = [folder for folder in folders if os.path.normpath(folder).startswith("/tmp/catalog/")]
    assert len(inside) == len(folders)
    assert len({os.path.normpath(folder) for folder in folders}) == len(folders)


@settings(max_examples=700, deadline=None)
@given(folder=names, name=names)
def test_nothing_is_written_outside_the_catalog(folder: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        top = Path(root, "top")
        catalog = Catalog(str(top / "catalog"))
        try:
            reference = catalog.at(catalog.node_prefix("d", "r", folder, -1)).put({"a": 1}, name, kind="json")
        except RayNodeError:
            pass
        else:
            assert catalog.load(reference) == {"a": 1}
        outside = [path for path in top.rglob("*") if path.is_file() and not path.is_relative_to(top / "catalog")]
        beside = [path for path in Path(root).rglob("*") if not path.is_relative_to(top)]
        assert not outside
        assert not beside


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.trace, "w")


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_tampered_reference_or_pickle_is_never_loaded(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        catalog = Catalog(f"{root}/catalog").at(f"{root}/catalog/d/r/n/-1")
        reference = dict(catalog.put({"weights": [1, 2, 3]}, "model", kind="pickled"))
        trace = Path(root, "exploded")
        bomb = pickle.dumps(Bomb(str(trace)))
        kind = data.draw(st.sampled_from(["data", "elsewhere", "digest", "uri", "field", "size"]))
        if kind == "data":
            Path(reference["uri"]).write_bytes(bomb)
        elif kind == "elsewhere":
            Path(root, "bomb.pkl").write_bytes(bomb)
            reference |= {"uri": f"{root}/bomb.pkl", "sha256": digest(bomb), "size": len(bomb)}
        elif kind == "digest":
            reference["sha256"] = data.draw(st.text("0123456789abcdef", min_size=0, max_size=70))
            assume(reference["sha256"] != digest(Path(reference["uri"]).read_bytes()))
        elif kind == "uri":
            Path(root, "bomb.pkl").write_bytes(bomb)
            up = data.draw(
                st.sampled_from(["../" * 5 + "bomb.pkl", "../../../../../bomb.pkl", "file://" + root + "/bomb.pkl"])
            )
            uri = up if "://" in up else f"{catalog.prefix_uri}/{up}"
            reference |= {"uri": uri, "sha256": digest(bomb), "size": len(bomb)}
        elif kind == "size":
            reference["size"] = data.draw(st.integers(-5, 10**6).filter(lambda size: size != reference["size"]))
        else:
            reference[data.draw(st.sampled_from(sorted(reference)))] = data.draw(json_values)
        try:
            found = catalog.load(CatalogRef.from_xcom(reference))
        except (CatalogError, SpecError):
            found = None
        assert not trace.exists(), "a pickle that nobody vouched for was loaded"
        assert found in (None, {"weights": [1, 2, 3]})


@settings(max_examples=400, deadline=None)
@given(data=st.data(), value=st.text(max_size=300))
def test_damaged_secrets_are_never_read(data: st.DataObject, value: str) -> None:
    whole, key = seal_secrets({"var:a": value}, "job-a")
    assert unseal_secrets(whole, key, "job-a") == {"var:a": value}
    assert len(value) < 8 or value.encode("utf-8", "surrogatepass") not in whole
    with pytest.raises(SecretsError):
        unseal_secrets(whole, key, "job-b")
    changed = damaged(data, whole)
    assume(changed != whole)
    with pytest.raises(SecretsError):
        unseal_secrets(changed, key, "job-a")
