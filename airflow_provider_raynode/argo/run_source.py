"""How a run's params get into its pods: as the source of a script, a file that the program gets as its last argument.

Texts of users never stand in an argument or a variable: Kubernetes would replace `$(NAME)` there, also by a Secret's
value, and Linux takes 128 KiB at most. Argo's plain tags end the run where a value has a character that Go writes as
`\\x7f`. And an input, such as a raw artifact, stands in the status of every node that has it, of which Argo keeps
1 MiB. So the params are base64 in a place that only the pod has.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_raynode.exceptions import RayNodeError

if TYPE_CHECKING:
    from airflow.sdk import DAG

LOGICAL_DATE = "logical-date"
# What Argo calls its own list of all parameters, beside each of them by its name.
_LIST = "json"


class WrongCallError(RayNodeError):
    """The runner was called with something that does not fit the DAG; the message names it and what would."""


def run_source(dag: DAG) -> str:
    """Return the expression of Argo's that becomes the file of a run's parameters."""
    parameters = "workflow.parameters" if _LIST in dag.params else f"sprig.omit(workflow.parameters, '{_LIST}')"
    return f"{{{{=sprig.b64enc(toJson({parameters}))}}}}"


def read_run_file(path: str) -> dict[str, str]:
    """Return the texts of a run's parameters by name, as Argo has them.

    :raises WrongCallError: the file is not what `run_source` becomes.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not base64"
        raise WrongCallError(f"RUN_FILE: {path}: cannot be read ({reason})") from None
    if text.startswith("{{"):
        raise WrongCallError(
            f"RUN_FILE: {path}: Argo left the expression {text[:100]!r} as it is: it needs Argo 3.7.16, 4.0.7 or newer"
        )
    try:
        found = json.loads(base64.b64decode(text.strip(), validate=True))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise WrongCallError(
            f'RUN_FILE: {path}: is not base64 of a JSON object with a text for each parameter: {{"who": "me"}}'
        )
    return found


def literal_text(text: str) -> str:
    """Return a text as Kubernetes must be given it in an argument or variable, to hand it on as it is."""
    return text.replace("$", "$$")
