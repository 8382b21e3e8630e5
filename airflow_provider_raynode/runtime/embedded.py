"""The embedded Ray: started by the driver for itself alone, and gone with it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
import time

import ray

log = logging.getLogger(__name__)

_POLL_S = 0.25
_GRACE_S = 5.0


def start() -> str:
    """Start a Ray that nothing else on this machine knows of; return its folder, for `remove`.

    It has this process's CPUs, no dashboard, and a folder with a short path (the sockets in it have names of at most
    107 bytes, see unix(7)).
    """
    folder = os.environ.get("RAYNODE_TEMP_DIR") or tempfile.mkdtemp(prefix="rn", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=available_cpus(),
        include_dashboard=False,
        _temp_dir=folder,
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


def remove(folder: str) -> None:
    """Stop the embedded Ray and remove its folder."""
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def end_with(parent: int) -> None:
    """Watch the parent process from a thread: when it is gone, this process and its whole group end.

    First as on SIGTERM, so that the state is written; after 5 s by SIGKILL of the process group, which is this
    process's own (the launcher makes it so) and holds all of the embedded Ray.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        log.error("The process that started this search (pid %d) is gone: stopping.", parent)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_S)
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="raynode-parent", daemon=True).start()
