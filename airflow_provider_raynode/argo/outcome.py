"""How a pod tells Argo what became of its task: exit codes."""

from __future__ import annotations

from pathlib import Path

EXIT_SUCCESS = 0
"""Success, or skipped: the output `state` tells which."""
EXIT_FAILED = 1
"""Failed; Argo tries again while its limit allows it."""
EXIT_FAILED_FOR_GOOD = 100
"""Failed, and not to be tried again: AirflowFailException."""
EXIT_UPSTREAM_FAILED = 101
"""The trigger rule says that the task cannot run."""
EXIT_WRONG_CALL = 102
"""The pod was called wrongly: another DAG, an unknown task."""
EXIT_TERMINATED = 143
"""Stopped by SIGTERM."""

NO_RETRY_CODES = (EXIT_FAILED_FOR_GOOD, EXIT_UPSTREAM_FAILED, EXIT_WRONG_CALL)

# Where Kubernetes reads why a container ended; Argo shows it as the node's message. Longer ones it cuts.
TERMINATION_LOG = Path("/dev/termination-log")
_LONGEST = 2000


def tell(message: str) -> None:
    """Say why the pod ends as it does, where Kubernetes looks for it; elsewhere nothing."""
    try:
        if TERMINATION_LOG.is_file():
            TERMINATION_LOG.write_text(message[:_LONGEST], encoding="utf-8")
    except OSError:
        return
