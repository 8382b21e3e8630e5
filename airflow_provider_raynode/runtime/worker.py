"""One trial on a worker: bind, call, report. The trainable that Tune runs."""

from __future__ import annotations

import logging
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune

from airflow_provider_raynode.catalog import Catalog, set_active
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.binding import bind
from airflow_provider_raynode.runtime.function import FunctionSource
from airflow_provider_raynode.runtime.secrets import NodeSecrets
from airflow_provider_raynode.runtime.trial import OBJECT_FILE, Trial, set_current
from airflow_provider_raynode.spec import NodeFailure, RunContext, SealedSecrets


@dataclass(frozen=True)
class TrialSetup:
    """What every trial of a node shares; it travels with the trainable, once per worker process.

    Tune pickles it into its experiment's files: of the secrets it holds where they are and their names, never a value.
    """

    function: FunctionSource
    run: RunContext
    attempt: int
    catalog_uri: str
    attempt_prefix: str
    returns: tuple[Return, ...]
    metric: str
    submission_id: str = ""
    secrets: SealedSecrets | None = None


# The secrets of the nodes that this process has run trials of; they are read once.
_secrets: dict[str, NodeSecrets] = {}


def run_trial(config: dict[str, Any], *, setup: TrialSetup, inputs: Mapping[str, Any]) -> None:
    """Run the node's function with one set of hyperparameters.

    :param config: the hyperparameters that Tune chose.
    :param setup: what the trials share.
    :param inputs: op_kwargs with their references loaded; NumPy arrays in it share the node's memory, read-only.
    """
    logging.getLogger("airflow_provider_raynode").setLevel(logging.INFO)
    trial_id = tune.get_context().get_trial_id()
    catalog = Catalog(setup.catalog_uri).at(setup.attempt_prefix)
    own = catalog.child(f"trials/{trial_id}")
    secrets = _secrets_of(setup, catalog)
    trial = Trial(
        trial_id=trial_id,
        run=setup.run,
        attempt=setup.attempt,
        catalog=own,
        store=catalog.child(f"outputs/{trial_id}"),
        returns=setup.returns,
        metric=setup.metric,
        secrets=secrets,
        send=_send,
    )
    function = setup.function.load()
    set_current(trial)
    set_active(own)
    arguments = bind(function, config, inputs)
    try:
        if secrets is not None:
            secrets.export()
        with secrets.masked_output() if secrets is not None else nullcontext():
            trial.finish(function(**arguments))
    except BaseException as error:  # Ray logs the text of a SystemExit as well
        safe = error if secrets is None else secrets.without_secrets(error)
        if isinstance(safe, Exception):
            _record_failure(catalog, trial_id, error, str if secrets is None else secrets.mask)
        if safe is not error:
            raise safe from None
        raise
    finally:
        set_current(None)
        set_active(None)


def _secrets_of(setup: TrialSetup, catalog: Catalog) -> NodeSecrets | None:
    if setup.secrets is None:
        return None
    if setup.submission_id not in _secrets:
        _secrets[setup.submission_id] = NodeSecrets(setup.secrets, setup.submission_id, catalog)
    return _secrets[setup.submission_id]


def _record_failure(catalog: Catalog, trial_id: str, error: BaseException, mask: Callable[[str], str]) -> None:
    """Keep the error with the user's frames first: what Ray passes on begins with its own."""
    own = Path(__file__).parent
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not Path(frame.filename).is_relative_to(own)
    ]
    text = "".join(["Traceback (most recent call last):\n", *traceback.format_list(frames)])
    text += "".join(traceback.format_exception_only(error))
    failure = NodeFailure(type=type(error).__name__, message=mask(str(error)), traceback=mask(text), trial_id=trial_id)
    with suppress(CatalogError):  # the trial's own error is the one to see
        catalog.write_bytes(failure_uri(catalog, trial_id), failure.to_bytes())


def failure_uri(attempt: Catalog, trial_id: str) -> str:
    """Return where a failing trial leaves its error, below the attempt's folder."""
    return f"{attempt.prefix_uri}/trials/{trial_id}/error.json"


def _send(metrics: dict[str, Any], checkpoint: Any) -> None:
    if checkpoint is None:
        tune.report(metrics)
        return
    with _checkpoint_folder(checkpoint) as folder:
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(folder)))


@contextmanager
def _checkpoint_folder(checkpoint: Any) -> Iterator[Path]:
    """Give a folder that holds the checkpoint; Tune copies it before `report` returns."""
    if isinstance(checkpoint, str | Path) and Path(checkpoint).is_dir():
        yield Path(checkpoint)
        return
    folder = Path(tempfile.mkdtemp(prefix="raynode-checkpoint-"))
    try:
        with (folder / OBJECT_FILE).open("wb") as stream:
            cloudpickle.dump(checkpoint, stream)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
