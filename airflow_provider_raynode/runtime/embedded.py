"""The embedded Ray: started by the driver for itself alone, and gone with it."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import ray

# Names the launcher's folder: its log, and below it Ray's files.
FOLDER = "RAYNODE_TEMP_DIR"
_POLL_S = 0.25


def start() -> Path:
    """Start a Ray that nothing else on this machine knows of; return its folder, for `remove`.

    It has this process's CPUs, no dashboard, and a folder with a short path (the sockets in it have names of at most
    107 bytes, see unix(7)).
    """
    folder = Path(os.environ.get(FOLDER) or tempfile.mkdtemp(prefix="rn-", dir="/tmp")) / "ray"
    ray.init(
        address="local",
        num_cpus=available_cpus(),
        include_dashboard=False,
        _temp_dir=str(folder),
        log_to_driver=True,
        logging_level=logging.WARNING,
    )
    return folder


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
        os.write(1, f"The process that started this search (pid {parent}) is gone: stopping.\n".encode())
        kill()
        if FOLDER in os.environ:
            shutil.rmtree(os.environ[FOLDER], ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="raynode-parent", daemon=True).start()
