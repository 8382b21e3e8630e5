"""Ray's runtime environment: the section `ray_cluster.runtime_env`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from airflow_provider_raynode.config._section import Problem, Section
from airflow_provider_raynode.config._values import Integer, Switch, Text

# Set by Ray itself for a job, or by this package: a value in env_vars would have no effect, or the wrong one.
_TAKEN = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")
_OURS = "RAYNODE_"
_STOP_SIGNAL, _STOP_WAIT = "RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S"
_STOP_SIGNALS = ("SIGINT", "SIGTERM")
_IN_THE_WORKER = "the embedded Ray runs in the Python of the Airflow worker"
# Keys of runtime_env that the embedded Ray cannot honour, and why.
_NOT_EMBEDDED = {
    **dict.fromkeys(("pip", "uv", "conda"), f"{_IN_THE_WORKER}: install the packages there"),
    "py_executable": _IN_THE_WORKER,
    **dict.fromkeys(("container", "image_uri"), f"{_IN_THE_WORKER}, not in an image"),
    "java_jars": "the embedded Ray starts no Java workers",
    **dict.fromkeys(("nsight", "rocprof_sys"), "the embedded Ray starts its workers without a profiler"),
    "config": "nothing of it has to be set up for the embedded Ray",
}
_EMBEDDED_TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_A_CLUSTER = "or name a cluster in ray_cluster.address or the connection"


def embedded_problems(environment: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what of a runtime environment has no effect on the embedded Ray: where below `runtime_env`, and what.

    :param environment: the fields that are given, as JSON.
    """
    for key, why in _NOT_EMBEDDED.items():
        if environment.get(key):
            yield (key,), f"has no effect here: {why}, {_A_CLUSTER}"
    for name in environment.get("env_vars") or {}:
        if name in (_STOP_SIGNAL, _STOP_WAIT):
            yield ("env_vars", name), "has no effect here: the embedded Ray is no job of Ray's; leave it out"
        elif name in _EMBEDDED_TOKENS:
            yield ("env_vars", name), "cannot be set here: the embedded Ray has a token of its own; leave it out"
    modules = environment.get("py_modules") or ()
    places: list[tuple[tuple[str | int, ...], Any]] = [(("working_dir",), environment.get("working_dir"))]
    places += [(("py_modules", index), each) for index, each in enumerate(modules)]
    for loc, value in places:
        if isinstance(value, str) and value.startswith("gcs://"):
            yield (
                loc,
                f"{value!r} lies on a cluster, which the embedded Ray is none: give a folder or a zip, {_A_CLUSTER}",
            )


def _environment_text(value: Any) -> str:
    # The value stays out of the message: it may be a secret.
    if not isinstance(value, str):
        raise ValueError(f"the value is a {type(value).__name__}, not text: put it in quotes")
    return value


EnvironmentText = Annotated[str, BeforeValidator(_environment_text)]


class Container(Section):
    """A container image for the workers; needs podman on the cluster's nodes."""

    image: Text = Field(description="the image, with registry and tag")
    worker_path: Text | None = Field(default=None, description="path of Ray's default_worker.py in the image")
    run_options: list[str] | None = Field(default=None, description="options of podman run")


class RuntimeEnvConfig(Section):
    """How Ray sets a runtime environment up."""

    setup_timeout_seconds: Integer | None = Field(default=None, description="longest time for the set-up; -1: no limit")
    eager_install: Switch | None = Field(default=None, description="whether to install when the job starts")
    log_files: list[Text] | None = Field(default=None, description="where the set-up logs to")


class RuntimeEnv(Section):
    """Ray's runtime environment: what the job's processes need, under Ray's names."""

    working_dir: Text | None = Field(
        default=None,
        description="where driver and trials run, and import from: a folder or zip, relative to the config file or the "
        "DAG file, or a URI",
    )
    py_modules: list[Text] | None = Field(
        default=None, description="folders, .py files, wheels or URIs to import from, before working_dir"
    )
    py_executable: Text | None = Field(default=None, description="the Python to run, e.g. `uv run`")
    excludes: list[Text] | None = Field(
        default=None,
        description="patterns, as in .gitignore, of what is not uploaded; `!name` takes back what .gitignore left out",
    )
    pip: list[Text] | dict[str, Any] | Text | None = Field(
        default=None, description="requirements, a requirements file, or Ray's mapping with packages"
    )
    uv: list[Text] | dict[str, Any] | Text | None = Field(default=None, description="as pip, installed by uv")
    conda: dict[str, Any] | Text | None = Field(default=None, description="an environment, its name or its YAML file")
    env_vars: dict[str, EnvironmentText] | None = Field(
        default=None, description="environment variables; readable through Ray's API, so no secrets"
    )
    container: Container | None = Field(default=None, description="a container image with options")
    image_uri: Text | None = Field(default=None, description="a container image")
    config: RuntimeEnvConfig | None = Field(default=None, description="how the environment is set up")
    worker_process_setup_hook: Text | None = Field(default=None, description="a function to call, as pkg.mod.fn")
    java_jars: list[Text] | None = Field(default=None, description="jars for Java workers")
    nsight: dict[str, str] | Text | None = Field(default=None, description="profiling by NVIDIA Nsight")
    rocprof_sys: dict[str, Any] | Text | None = Field(default=None, description="profiling by ROCm Systems Profiler")

    def problems(self) -> Iterator[Problem]:
        """Yield what Ray refuses to have side by side."""
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        images = [name for name in ("container", "image_uri") if name in given]
        if len(images) == 2:
            yield ("image_uri",), "cannot be beside container: name the image once"
        if images:
            for name in given:
                if name not in ("container", "image_uri", "config", "env_vars"):
                    yield (
                        (name,),
                        f"cannot be beside {images[0]}: Ray allows only config and env_vars there; put it in the image",
                    )
        yield from self._variable_problems()
        for index, jar in enumerate(self.java_jars or ()):
            if "://" not in jar:
                yield ("java_jars", index), f"{jar!r} is not uploaded: give its URI (s3://…, https://…)"
        installers = [name for name in ("pip", "uv", "conda") if name in given]
        if len(installers) > 1:
            yield (installers[1],), f"cannot be beside {installers[0]}: Ray takes one of pip, uv and conda"

    def _variable_problems(self) -> Iterator[Problem]:
        for name, value in (self.env_vars or {}).items():
            if not name or "=" in name or "\0" in name or "\0" in value:
                yield ("env_vars", name), "no environment can hold it: names have no =, and nothing a zero byte"
            elif name in _TAKEN or name.startswith(_OURS):
                whose = "airflow-provider-raynode" if name.startswith(_OURS) else "Ray itself"
                yield ("env_vars", name), f"is set by {whose} for every job: leave it out"
            elif name == _STOP_SIGNAL and value not in _STOP_SIGNALS:
                yield ("env_vars", name), f"{value!r} is not allowed; allowed: {', '.join(_STOP_SIGNALS)}"
            elif name == _STOP_WAIT and not (value.isascii() and value.isdigit() and int(value) > 0):
                yield ("env_vars", name), f"{value!r} is not a whole number of seconds above 0"
