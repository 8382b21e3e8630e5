"""The store: round trips by kind, atomic writes, digests, places that it refuses."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_provider_raynode.catalog import Catalog, CatalogRef, Serializer, register_serializer, safe_segment
from airflow_provider_raynode.exceptions import CatalogError


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


@pytest.fixture
def local(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path / "catalog"))


def frames() -> dict[str, Any]:
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)], names=["x", "y"])
    return {
        "plain": pd.DataFrame({"n": [1, 2], "t": ["ü", None]}, index=[7, 9]),
        "categories": pd.DataFrame({"c": pd.Categorical(["a", "b"])}),
        "times": pd.DataFrame({"t": pd.to_datetime(["2026-01-01", "2026-06-01"]).tz_localize("Europe/Berlin")}),
        "multi": pd.DataFrame({"v": [1.5, 2.5]}, index=index),
        "empty": pd.DataFrame({"v": []}),
        "numbered columns": pd.DataFrame([[1, 2]]),
        "mixed objects": pd.DataFrame({"v": [1, "a"]}),
    }


@pytest.mark.parametrize("name", frames())
def test_frames_come_back_equal(store: Catalog, name: str) -> None:
    frame = frames()[name]
    pd.testing.assert_frame_equal(store.load(store.put(frame)), frame)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(10)[::3],
        np.array(5),
        np.zeros((0, 3)),
        np.array(["ä", "bb"]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.array([1, 2], dtype=">i4"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array([True, False]),
        np.array([1, "a"], dtype=object),
        np.ma.masked_array([1, 2], mask=[True, False]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}-{type(array).__name__}",
)
def test_arrays_come_back_equal(store: Catalog, array: Any) -> None:
    loaded = store.load(store.put(array))
    assert type(loaded) is type(array)
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(loaded, array)


def test_an_arrow_table_stays_a_table(store: Catalog) -> None:
    table = pa.table({"a": [1, 2], "d": pa.array(["x", "x"]).dictionary_encode()}).replace_schema_metadata({"k": "v"})
    loaded = store.load(store.put(table))
    assert loaded.equals(table, check_metadata=True)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "json"), (True, "json"), (2**80, "json"), (1.5, "json"), ("ünï ✓", "json"), ([1, [2.0, None]], "json"),
        ({"a": {"b": []}}, "json"), ("", "json"), ({}, "json"),
        ((1, 2), "pickled"), ({1: "a"}, "pickled"), ({"a": (1,)}, "pickled"), (float("inf"), "pickled"),
        (b"bytes", "pickled"), ({1, 2}, "pickled"), (np.float64(1.5), "pickled"),
    ],
    ids=repr,
)  # fmt: skip
def test_values_choose_the_kind_that_keeps_them(store: Catalog, value: Any, kind: str) -> None:
    ref = store.put(value)
    assert ref.kind == kind
    loaded = store.load(ref)
    assert loaded == value
    assert type(loaded) is type(value)


def test_a_lone_surrogate_and_a_deep_list_are_kept(store: Catalog) -> None:
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    assert store.load(store.put("\ud800")) == "\ud800"
    depth, value = 0, store.load(store.put(deep))
    while value:
        depth, value = depth + 1, value[0]
    assert depth == 300


def test_files_and_folders(store: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "a folder ü"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "sub" / "file.txt").write_text("text")
    ref = store.put(folder, "the folder")
    loaded = store.load(ref)
    assert ref.kind == "directory"
    assert (loaded / "sub" / "file.txt").read_text() == "text"
    assert (loaded / "sub" / "empty").is_dir()
    ref = store.put(folder / "sub" / "file.txt", "one")
    assert (ref.kind, store.load(ref).read_text(), ref.uri.rpartition("/")[2]) == ("file", "text", "one.txt")
    (folder / "nothing").touch()
    assert store.load(store.put(folder / "nothing")).read_bytes() == b""


def test_a_link_out_of_a_folder_is_not_followed(store: Catalog, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to("/etc/passwd")
    with pytest.raises(CatalogError):
        store.load(store.put(tmp_path / "folder"))


def test_a_class_of_main_and_a_lambda_are_pickled_by_value(local: Catalog) -> None:
    code = f"""
        from airflow_provider_raynode.catalog import Catalog
        class Model:
            def __init__(self, w): self.w = w
        import json
        print(json.dumps(Catalog({local.uri!r}).put({{"m": Model(3), "f": lambda x: x + 1}})))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    value = local.load(json.loads(done.stdout))
    assert (value["m"].w, value["f"](1)) == (3, 2)


def test_a_reference_is_plain_json_with_five_keys(store: Catalog) -> None:
    ref = store.put([1], "x")
    assert set(ref) == {"uri", "kind", "sha256", "size", "created"}
    assert (ref.path.name, ref.path.read_bytes()) == ("x.json", b"[1]")
    assert json.loads(json.dumps(ref)) == dict(ref)
    assert CatalogRef.is_ref(json.loads(json.dumps(ref)))
    assert CatalogRef.from_xcom(dict(ref)) == ref
    assert pickle.loads(pickle.dumps(ref)).uri == ref.uri
    assert isinstance(store.load(store.put({"inner": ref}, kind="json"))["inner"], dict)


@pytest.mark.parametrize(
    "value",
    [None, 1, "s3://bucket/x", [], {}, {"uri": "x"},
     {"uri": 1, "kind": "json", "sha256": "0" * 64, "size": 1, "created": "x"},
     {"uri": "x", "kind": "json", "sha256": "0", "size": 1, "created": "x"},
     {"uri": "x", "kind": "../x", "sha256": "0" * 64, "size": 1, "created": "x"},
     {"uri": "x", "kind": "json", "sha256": "0" * 64, "size": -1, "created": "x"},
     {"uri": "x", "kind": "json", "sha256": "0" * 64, "size": True, "created": "x"},
     {"uri": "x", "kind": "json", "sha256": "0" * 64, "size": 1, "created": "x", "more": 1}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_reference_is_told(local: Catalog, value: Any) -> None:
    assert not CatalogRef.is_ref(value)
    with pytest.raises(CatalogError, match="reference"):
        local.load(value)


@pytest.mark.parametrize("kind", ["json", "pickled", "numpy"])
def test_every_damage_is_seen_before_the_value_is_read(local: Catalog, kind: str) -> None:
    ref = local.put(np.arange(3) if kind == "numpy" else [1, 2, 3], "x", kind=kind)
    path = Path(ref.uri)
    good = path.read_bytes()
    for bad in (good[:-1], good + b"\0", bytes([good[0] ^ 1]) + good[1:], b""):
        path.write_bytes(bad)
        with pytest.raises(CatalogError, match="is not what its reference names"):
            local.load(ref)
    path.unlink()
    with pytest.raises(CatalogError, match="does not exist"):
        local.load(ref)


class _Trap:
    def __reduce__(self) -> Any:
        return os.abort, ()


def test_a_pickle_from_elsewhere_is_never_loaded(local: Catalog, tmp_path: Path) -> None:
    elsewhere = Catalog(str(tmp_path / "elsewhere"))
    ref = elsewhere.put(_Trap())
    with pytest.raises(CatalogError, match="trusted_catalogs"):
        local.load(ref)
    assert local.load(elsewhere.put([1])) == [1], "what cannot run code may lie anywhere"
    good = elsewhere.put((1, 2))
    assert Catalog(local.uri, trusted=(elsewhere.uri,)).load(good) == (1, 2)
    (Path(local.uri)).mkdir(exist_ok=True)
    (Path(local.uri) / "link").symlink_to(elsewhere.uri)
    with pytest.raises(CatalogError, match="trusted_catalogs"):
        local.load({**ref, "uri": ref.uri.replace(elsewhere.uri, f"{local.uri}/link")})
    with pytest.raises(CatalogError, match=r"'\.\.' is not allowed"):
        local.load({**ref, "uri": f"{local.uri}/../elsewhere/{Path(ref.uri).name}"})


@pytest.mark.parametrize("uri", ["relative/path", "", "file://relative", "/a/../b", "s3://b/../c"])
def test_a_bad_root_is_refused(uri: str) -> None:
    with pytest.raises(CatalogError):
        Catalog(uri)


def test_unknown_protocol_driver_and_kind(local: Catalog) -> None:
    with pytest.raises(CatalogError, match="no protocol 'nope'"):
        Catalog("nope://x").put(1)
    with pytest.raises(CatalogError, match="did you mean 'pickled'"):
        local.put(1, kind="pickle")
    if not _importable("gcsfs"):
        with pytest.raises(CatalogError, match="pip install gcsfs"):
            Catalog("gs://bucket").put(1)


def _importable(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize(
    "name", ["../../up", "a/b", "", ".", "..", "/etc/passwd", "ü ✓", "x" * 500, "-", ".hidden", "a\0b"]
)
def test_names_lead_nowhere_else(local: Catalog, name: str) -> None:
    ref = local.put([name], name)
    assert Path(ref.uri).resolve().parent == Path(local.uri).resolve()
    assert local.load(local.get_ref(name)) == [name]
    prefix = Path(local.node_prefix(name, name, name, 0))
    assert len(prefix.relative_to(local.uri).parts) == 4


def test_different_ids_never_meet() -> None:
    names = ["a b", "a_b", "a/b", "a.b", "A_b", "a\tb", "", ".", "..", "_", "ä_b", "ö_b", "x" * 300, "x" * 301]
    assert len({safe_segment(name) for name in names}) == len(names)
    run_id = "manual__2026-11-23T18:14:45.123456+00:00"
    assert safe_segment(run_id) == run_id


def test_a_name_put_again_is_replaced_and_the_old_reference_says_so(store: Catalog) -> None:
    old, new = store.put([1], "x"), store.put([2], "x")
    assert store.load(new) == [2]
    assert store.load(store.get_ref("x")) == [2]
    with pytest.raises(CatalogError, match="replaced"):
        store.load(old)


def test_get_ref_of_another_task_of_the_run(local: Catalog) -> None:
    one = local.at(local.node_prefix("dag", "run", "one", 3))
    other = local.at(local.node_prefix("dag", "run", "other"))
    one.put("hello", "x")
    assert other.load(other.get_ref("x", task_id="one", map_index=3)) == "hello"
    with pytest.raises(CatalogError, match="nothing was put as 'x'"):
        other.get_ref("x")


def test_list_exists_delete(store: Catalog) -> None:
    below = store.child("a")
    refs = [below.put(number, f"n{number}") for number in range(3)]
    assert [uri for uri in store.list(f"{store.uri}/a") if not uri.endswith(".ref.json")] == [ref.uri for ref in refs]
    assert store.list(f"{store.uri}/nowhere") == []
    store.delete(f"{store.uri}/a")
    assert not store.exists(refs[0].uri)
    store.delete(f"{store.uri}/a")
    with pytest.raises(CatalogError, match="root"):
        store.delete(store.uri)
    with pytest.raises(CatalogError, match="not below"):
        store.delete("/somewhere/else")


def test_a_failing_dump_leaves_nothing(local: Catalog) -> None:
    local.put([1], "x", kind="json")
    with pytest.raises(CatalogError, match="cannot be stored as json"):
        local.put({"a": {1, 2}}, "x", kind="json")
    assert local.load(local.get_ref("x")) == [1]
    assert not [path for path in Path(local.uri).iterdir() if path.name.startswith(".tmp")]


def test_a_writer_killed_half_way_leaves_no_readable_half(local: Catalog) -> None:
    code = f"""
        import time
        from airflow_provider_raynode.catalog import Catalog
        def dump(stream):
            stream.write(b"half")
            stream.flush()
            print("half way", flush=True)
            time.sleep(60)
        Catalog({local.uri!r})._write("{local.uri}/object", dump)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not local.exists(f"{local.uri}/object")
    assert local.list(local.uri) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]).returncode
    ):
        pytest.skip("needs the right to mount a small file system")
    try:
        store = Catalog(str(tmp_path))
        with pytest.raises(CatalogError, match="storage is full"):
            store.put(np.zeros(1_000_000))
        assert store.list(store.uri) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_no_permission_is_told(local: Catalog) -> None:
    local.put([1], "x")
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    Path(local.uri).chmod(0o500)
    with pytest.raises(CatalogError, match="no permission to write"):
        local.put([2], "y")


def test_two_processes_put_the_same_name(local: Catalog) -> None:
    code = f"""
        from airflow_provider_raynode.catalog import Catalog
        import sys
        store = Catalog({local.uri!r})
        for _ in range(50):
            store.put(sys.argv[1] * 100_000, "x")
    """
    children = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), word]) for word in "ab"]
    seen = 0
    while any(child.poll() is None for child in children):
        if local.exists(f"{local.uri}/x.json"):
            assert len(json.loads(local.read_bytes(f"{local.uri}/x.json"))) == 100_000
            seen += 1
    assert seen
    assert [child.returncode for child in children] == [0, 0]


class _Upper(Serializer):
    kind = "upper"
    suffix = ".up"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, _Word)

    def dump(self, value: Any, stream: Any) -> None:
        stream.write(value.text.upper().encode())

    def load(self, data: bytearray, name: str) -> Any:
        return _Word(data.decode())


class _Word:
    def __init__(self, text: str) -> None:
        self.text = text


def test_a_kind_of_ones_own(store: Catalog) -> None:
    register_serializer(_Upper())
    ref = store.put(_Word("loud"))
    assert (ref.kind, store.load(ref).text) == ("upper", "LOUD")


def test_a_name_is_created_once(tmp_path: Path) -> None:
    for store in (Catalog(str(tmp_path)).at("a"), Catalog("memory://created").at("a")):
        uri = f"{store.prefix_uri}/b/0001.json"
        assert store.create_bytes(uri, b"one")
        assert not store.create_bytes(uri, b"two")
        assert store.read_bytes(uri) == b"one"
        assert store.list(f"{store.prefix_uri}/b") == [uri]
        store.rewrite_bytes(uri, b"two")
        assert store.read_bytes(uri) == b"two"
        store.delete(store.prefix_uri)
        assert store.create_bytes(uri, b"three")
        store.delete(store.prefix_uri)
    assert Catalog(str(tmp_path)).creates_exclusively
    assert not Catalog("memory://created").creates_exclusively


def test_a_name_is_created_once_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path, target: Path) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuses)
    store = Catalog(str(tmp_path))
    assert store.create_bytes(f"{store.uri}/a", b"one")
    assert not store.create_bytes(f"{store.uri}/a", b"two")
    assert store.read_bytes(f"{store.uri}/a") == b"one"


def test_what_is_not_there_is_not_rewritten(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        Catalog(str(tmp_path)).rewrite_bytes(f"{tmp_path}/a", b"one")


def test_a_guard_is_asked_before_each_change(tmp_path: Path) -> None:
    def refuse() -> None:
        raise CatalogError("no")

    for store in (Catalog(str(tmp_path)), Catalog("memory://guarded")):
        store.write_bytes(f"{store.uri}/a/b", b"one")
        guarded = store.guarded(refuse).at("a").child("c")
        for change in (
            lambda each=guarded: each.write_bytes(f"{each.uri}/a/b", b"two"),
            lambda each=guarded: each.create_bytes(f"{each.uri}/a/d", b"two"),
            lambda each=guarded: each.put([1], "name"),
            lambda each=guarded: each.delete(f"{each.uri}/a"),
        ):
            with pytest.raises(CatalogError, match="no"):
                change()
        assert guarded.read_bytes(f"{store.uri}/a/b") == b"one"
        assert not store.exists(f"{store.uri}/a/d")
        store.write_bytes(f"{store.uri}/a/b", b"two")
