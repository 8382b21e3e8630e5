"""Each key of a runtime environment with each launcher: it has an effect, or it is refused where it can be known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_raynode.config import RayConfig
from airflow_provider_raynode.config.runtime_env import RuntimeEnv
from airflow_provider_raynode.exceptions import ConfigError
from airflow_provider_raynode.hooks.ray import RayHook
from airflow_provider_raynode.operators._target import check_target

# Of every key: a value, and whether the embedded Ray honours it.
KEYS: dict[str, tuple[Any, bool]] = {
    "working_dir": (str(Path(__file__).parent), True),
    "py_modules": ([str(Path(__file__).parent)], True),
    "excludes": (["*.bin"], True),
    "env_vars": ({"A": "1"}, True),
    "worker_process_setup_hook": ("pkg.mod.fn", True),
    "py_executable": ("uv run", False),
    "pip": (["numpy"], False),
    "uv": (["numpy"], False),
    "conda": ("an-environment", False),
    "container": ({"image": "an-image"}, False),
    "image_uri": ("an-image", False),
    "config": ({"setup_timeout_seconds": 60}, False),
    "java_jars": (["s3://bucket/a.jar"], False),
    "nsight": ("default", False),
    "rocprof_sys": ("default", False),
}
BESIDE = {"excludes": {"working_dir": str(Path(__file__).parent)}}


def config(environment: dict[str, Any], address: str | None = None) -> dict[str, Any]:
    cluster = {"runtime_env": environment} if address is None else {"runtime_env": environment, "address": address}
    space = {"x": {"type": "uniform", "low": 0, "high": 1}}
    return {"ray_cluster": cluster, "ray_tune": {"metric": "score", "mode": "max", "search_space": space}}


def environment(key: str) -> dict[str, Any]:
    return {key: KEYS[key][0], **BESIDE.get(key, {})}


def fan_out(loaded: RayConfig) -> None:
    check_target(len, loaded, RayHook(address=loaded.cluster_address), None)  # type: ignore[arg-type]  # no catalog here


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Define the connection `ray_default` of the embedded Ray, with a runtime environment of its own."""

    def define(runtime_env: Any, **fields: Any) -> None:
        text = json.dumps({"conn_type": "ray", "extra": {"runtime_env": runtime_env}, **fields})
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", text)

    return define


def test_every_key_is_classified() -> None:
    assert set(KEYS) == set(RuntimeEnv.model_fields)


@pytest.mark.parametrize("key", KEYS)
def test_where_the_file_says_local(key: str) -> None:
    if KEYS[key][1]:
        fan_out(RayConfig.load(config(environment(key), "local")))
        return
    with pytest.raises(ConfigError, match=rf"x\.yaml: ray_cluster\.runtime_env\.{key}: has no effect here: .* or name"):
        RayConfig.load(config(environment(key), "local"), source="x.yaml")


@pytest.mark.parametrize("key", KEYS)
def test_where_nobody_says_an_address(key: str) -> None:
    loaded = RayConfig.load(config(environment(key)))
    if KEYS[key][1]:
        fan_out(loaded)
        return
    with pytest.raises(ConfigError, match=rf"^ray_config: ray_cluster\.runtime_env\.{key}: has no effect here"):
        fan_out(loaded)


@pytest.mark.parametrize("key", KEYS)
def test_a_connections_default(key: str, connection: Any) -> None:
    connection(environment(key), host="local")
    if KEYS[key][1]:
        fan_out(RayConfig.load(config({})))
        return
    with pytest.raises(ConfigError, match=rf"^connection ray_default: extra runtime_env\.{key}: has no effect here"):
        fan_out(RayConfig.load(config({})))


@pytest.mark.parametrize("key", KEYS)
def test_a_cluster_takes_every_key(key: str) -> None:
    RayConfig.load(config(environment(key), "http://head:8265"))


def test_the_message_says_where_each_half_comes_from(connection: Any) -> None:
    connection({"env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGTERM"}})
    with pytest.raises(ConfigError) as raised:
        fan_out(RayConfig.load(config({"env_vars": {"RAY_AUTH_MODE": "token", "A": "1"}, "pip": ["numpy"]})))
    assert len(str(raised.value).splitlines()) == 3
    text = str(raised.value)
    assert "ray_config: ray_cluster.runtime_env.env_vars.RAY_AUTH_MODE: cannot be set here" in text
    assert "connection ray_default: extra runtime_env.env_vars.RAY_JOB_STOP_SIGNAL: has no effect here" in text
    assert "ray_config: ray_cluster.runtime_env.pip: has no effect here" in text


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"env_vars": {"RAY_ADDRESS": "auto"}}, "env_vars.RAY_ADDRESS: is set by Ray itself"),
        ({"env_vars": {"RAYNODE_X": "1"}}, "env_vars.RAYNODE_X: is set by airflow-provider-raynode"),
        ({"env_vars": {"A=B": "1"}}, "no environment can hold it"),
        ({"env_vars": {"RAY_JOB_STOP_SIGNAL": "SIGKILL"}}, "'SIGKILL' is not allowed; allowed: SIGINT, SIGTERM"),
        ({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "2.5"}}, "'2.5' is not a whole number of seconds"),
        ({"java_jars": ["/a.jar"]}, r"java_jars\[0\]: '/a.jar' is not uploaded"),
    ],
)
def test_what_no_launcher_can_honour(written: dict[str, Any], message: str) -> None:
    for address in (None, "local", "http://head:8265"):
        with pytest.raises(ConfigError, match=message):
            RayConfig.load(config(written, address))


def test_a_package_that_lies_on_a_cluster() -> None:
    written = {"working_dir": "gcs://_ray_pkg_1.zip", "py_modules": ["s3://bucket/m.zip", "gcs://_ray_pkg_2.zip"]}
    with pytest.raises(ConfigError) as raised:
        RayConfig.load(config(written, "local"))
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == [
        "ray_cluster.runtime_env.working_dir",
        "ray_cluster.runtime_env.py_modules[1]",
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"working_dir": "assets"}, "extra runtime_env.working_dir: 'assets' is relative.*give an absolute path"),
        ({"workingdir": "/a"}, "extra runtime_env.workingdir: unknown key, did you mean 'working_dir'"),
        ({"env_vars": {"A": 1}}, "extra runtime_env.env_vars.A: the value is a int, not text"),
    ],
)
def test_a_connections_environment_is_checked_as_a_configs_is(connection: Any, extra: Any, message: str) -> None:
    connection(extra)
    with pytest.raises(ConfigError, match=f"^connection ray_default: {message}"):
        RayHook().resolve()


def test_a_rayjob_takes_nothing_from_a_connection(connection: Any) -> None:
    connection({"env_vars": {"A": "1"}})
    with pytest.raises(ConfigError, match="connection ray_default: extra runtime_env has no effect on a RayJob"):
        check_target(len, RayConfig.load(config({})), RayHook(address="rayjob"), None)  # type: ignore[arg-type]


def test_paths_are_looked_at_before_anything_is_staged() -> None:
    with pytest.raises(ConfigError, match=r"runtime_env.working_dir: /no/such does not exist on this machine"):
        fan_out(RayConfig.load(config({"working_dir": "/no/such"})))
