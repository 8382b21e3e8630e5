"""The embedded Ray: started by the driver for itself alone, and gone with it."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import services, utils

from airflow_provider_raynode.exceptions import ClusterError

log = logging.getLogger(__name__)

# Names the launcher's folder: its log, and below it Ray's files.
FOLDER = "RAYNODE_TEMP_DIR"
# What Ray itself has to do of the runtime environment, as JSON; the launcher has done the rest.
RUNTIME_ENV = "RAYNODE_RUNTIME_ENV"
_POLL_S = 0.25
# How often a start is tried, how long each of Ray's processes may take to come up, and the pause before the next try.
_TRIES = 3
_PATIENCE_S = 120.0
_PAUSE_S = 5.0
_GCS_WAIT = "RAY_gcs_server_port_wait_time_s"


def start() -> Path:
    """Start a Ray that nothing else on this machine knows of; return its folder, for `remove`.

    It has this process's CPUs, no dashboard, and a folder with a short path (the sockets in it have names of at most
    107 bytes, see unix(7)). A start that fails, as on a machine that is too busy for it, is tried again: with a folder
    of its own, when nothing of the one before is left.

    :raises ClusterError: no try came to its end; the message has the machine's load, and Ray's own last words.
    """
    base = Path(os.environ.get(FOLDER) or tempfile.mkdtemp(prefix="rn-", dir="/tmp"))
    begin = time.monotonic()
    others = {process.pid for process in psutil.Process().children(recursive=True)}
    for number in range(1, _TRIES + 1):
        folder = base / ("ray" if number == 1 else f"ray{number}")
        try:
            with patience(_PATIENCE_S):
                ray.init(
                    address="local",
                    num_cpus=available_cpus(),
                    include_dashboard=False,
                    _temp_dir=str(folder),
                    log_to_driver=True,
                    logging_level=logging.WARNING,
                    runtime_env=json.loads(os.environ.get(RUNTIME_ENV) or "null"),
                )
            return folder
        except (ValueError, TypeError):
            raise  # not the machine's fault: an argument
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
            words = last_words(folder)
            clear(folder, others)
            tried = time.monotonic() - begin
            if number == _TRIES:
                raise ClusterError(
                    f"the embedded Ray did not start in {_TRIES} tries ({tried:.0f} s): {said}. {machine()}{words}"
                ) from error
            log.warning(
                "The embedded Ray did not start (try %d of %d, after %.0f s): %s. %s Trying again in %g s",
                number, _TRIES, tried, said, machine(), _PAUSE_S * number,
            )  # fmt: skip
            time.sleep(_PAUSE_S * number)
    raise AssertionError("the last try returns or raises")


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Let Ray wait so long for each of its processes to come up, where it would give up after 30 s.

    The time for its GCS can be set, that for its raylet cannot: Ray asks for the raylet's entry until 30 s are over,
    and one question may take longer. Meanwhile a SIGTERM stays the driver's to handle.
    """
    ask: Any = services.get_node
    handle: Any = utils.set_sigterm_handler
    before = os.environ.get(_GCS_WAIT)

    def get_node(gcs_address: str, node_id: str) -> Any:
        end = time.monotonic() + seconds
        while True:
            try:
                return ask(gcs_address, node_id)
            except RuntimeError as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"its raylet had not come up within {seconds:g} s") from error
            time.sleep(_POLL_S)

    os.environ.setdefault(_GCS_WAIT, str(math.ceil(seconds)))
    services.get_node, utils.set_sigterm_handler = get_node, lambda handler: None
    try:
        yield
    finally:
        services.get_node, utils.set_sigterm_handler = ask, handle
        if before is None:
            os.environ.pop(_GCS_WAIT, None)


def machine() -> str:
    """Return how busy this machine is, and what to do where it is too busy."""
    cpus, load = available_cpus(), os.getloadavg()[0]
    memory, disk = psutil.virtual_memory(), shutil.disk_usage("/tmp")
    gib = 2**30
    facts = (
        f"load average {load:.1f} on {cpus} CPUs, {memory.available / gib:.1f} of {memory.total / gib:.1f} GiB memory "
        f"and {disk.free / gib:.1f} GiB of /tmp free"
    )
    if load <= cpus and memory.available > gib and disk.free > gib:
        return f"This machine ({facts}) does not look overloaded."
    return (
        f"This machine is overloaded: {facts}. Run fewer nodes at a time (a pool, max_active_tis_per_dag, parallelism "
        "on Argo), give the task more CPUs, or run the node on a cluster."
    )


def last_words(folder: Path) -> str:
    """Return the last line of each log that Ray's processes left in a folder, for the message of a failed start."""
    lines = []
    for path in sorted(folder.glob("session_latest/logs/*")):
        if path.name.startswith(("gcs_server", "raylet")) and path.suffix in (".out", ".err"):
            text = path.read_text(errors="replace").strip()
            if text:
                lines.append(f"{path.name}: {text.splitlines()[-1][:300]}")
    return "".join(f"\n    {line}" for line in lines)


def clear(folder: Path, others: set[int]) -> None:
    """End what a start that failed has left: its processes by pid, and their folder.

    :param others: pids of this process's other children.
    """
    with suppress(Exception):
        ray.shutdown()
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in others]
    # What has lost its parent is known by the folder on its command line.
    for process in psutil.process_iter(["pid", "cmdline"]):
        if process.pid != os.getpid() and any(str(folder) in word for word in process.info["cmdline"] or ()):
            left.append(process)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=3)
    shutil.rmtree(folder, ignore_errors=True)


def available_cpus() -> int:
    """Return the CPUs that this process may use: its affinity, within the control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123  a file of the kernel
            quota, period = file.read().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)


def remove(folder: Path) -> None:
    """Stop the embedded Ray and remove its folder."""
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def kill() -> None:
    """End every process of the embedded Ray at once, without its help."""
    family = psutil.Process().children(recursive=True)
    for process in family:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family, timeout=3)


def end_with(parent: int) -> None:
    """Watch the parent process from a thread: when it is gone, this process, its Ray and their folder go as well.

    The state needs no help to be resumed: Tune and the catalog write as they go. Nothing here waits for the main
    thread, which may be deep in Ray.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os.write(1, f"The process that started this job (pid {parent}) is gone: stopping.\n".encode())
        kill()
        if FOLDER in os.environ:
            shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="raynode-parent", daemon=True).start()
