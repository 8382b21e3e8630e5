"""One trial on a worker: bind, call, report. The trainable that Tune runs."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from ray import cloudpickle, tune

from airflow_provider_raynode.catalog import Catalog, set_active
from airflow_provider_raynode.exceptions import CatalogError, RayNodeError
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.binding import bind
from airflow_provider_raynode.runtime.failures import describe, exits_told, to_raise
from airflow_provider_raynode.runtime.function import FunctionSource
from airflow_provider_raynode.runtime.names import OUTPUTS_KEY, RETURNED_KEY, arrived
from airflow_provider_raynode.runtime.references import Reference, ReportCheck
from airflow_provider_raynode.runtime.secrets import NodeSecrets
from airflow_provider_raynode.runtime.tagged import tagged
from airflow_provider_raynode.runtime.trial import OBJECT_FILE, ORIGIN_FILE, Origin, Trial, set_current
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
    further_metrics: tuple[str, ...] = ()
    submission_id: str = ""
    secrets: SealedSecrets | None = None
    references: tuple[Reference, ...] = ()
    # Which of the search's drivers runs the trials.
    driver: int = 1


# The secrets of the nodes that this process has run trials of; they are read once.
_secrets: dict[str, NodeSecrets] = {}


def run_trial(config: dict[str, Any], *, setup: TrialSetup, inputs: Mapping[str, Any]) -> None:
    """Run the node's function with one set of hyperparameters.

    :param config: the hyperparameters that Tune chose.
    :param setup: what the trials share.
    :param inputs: op_kwargs with their references loaded; NumPy arrays in it share the node's memory, read-only.
    """
    trial_id = tune.get_context().get_trial_id()
    with tagged(trial_id):
        _run_trial(trial_id, config, setup, inputs)


def _run_trial(trial_id: str, config: dict[str, Any], setup: TrialSetup, inputs: Mapping[str, Any]) -> None:
    catalog = Catalog(setup.catalog_uri).at(setup.attempt_prefix)
    own = catalog.child(f"trials/{trial_id}")
    secrets = _secrets_of(setup, catalog)
    trial = Trial(
        trial_id=trial_id,
        run=setup.run,
        attempt=setup.attempt,
        catalog=own,
        store=catalog.child(_outputs_of(trial_id, setup.driver)),
        returns=setup.returns,
        metric=setup.metric,
        further_metrics=setup.further_metrics,
        secrets=secrets,
        send=partial(_send, trial_id),
        check=ReportCheck(setup.references),
        origin=_origin(),
    )

    def record(failure: NodeFailure) -> None:
        with suppress(CatalogError):  # the trial's own error is the one to see
            catalog.write_bytes(failure_uri(catalog, trial_id), failure.to_bytes())

    set_current(trial)
    set_active(own)
    try:
        function = setup.function.load()
        arguments = bind(function, config, inputs)
        if secrets is not None:
            secrets.export()
        masked = secrets.masked_output() if secrets is not None else nullcontext()
        with masked, exits_told(record, trial_id):
            trial.finish(function(**arguments))
    except BaseException as error:
        if trial.stopped:  # Tune ended it: what its function makes of that is of no more use
            raise SystemExit(0) from None
        failure = describe(error, trial_id, str if secrets is None else secrets.mask)
        record(failure)
        safe = error if secrets is None else secrets.without_secrets(error)
        raised = to_raise(safe, failure)
        if raised is not error:
            raise raised from None
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


def _outputs_of(trial_id: str, driver: int) -> str:
    """Return the folder of a trial's outputs: those of a driver that was cut off, and runs on, are not in the way."""
    return f"outputs/{trial_id}" if driver == 1 else f"outputs/{trial_id}/driver_{driver}"


def failure_uri(attempt: Catalog, trial_id: str) -> str:
    """Return where a failing trial leaves its error, below the attempt's folder."""
    return f"{attempt.prefix_uri}/trials/{trial_id}/error.json"


def _origin() -> Origin | None:
    """Return what the trial goes on from, None where it begins."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None
    try:
        with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{ORIGIN_FILE}") as stream:
            return Origin(**json.loads(stream.read()))
    except (OSError, ValueError, TypeError):
        return Origin()


def _send(trial_id: str, metrics: dict[str, Any], checkpoint: Any) -> None:
    if checkpoint is None:
        tune.report(metrics)
        return
    own = {arrived(key): value for key, value in metrics.items() if key not in (OUTPUTS_KEY, RETURNED_KEY)}
    text = json.dumps({"trial_id": trial_id, "metrics": own})
    with _checkpoint_folder(checkpoint) as folder, _origin_in(folder, text):
        tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(str(folder)))


@contextmanager
def _origin_in(folder: Path, text: str) -> Iterator[None]:
    """Keep `text` beside the checkpoint while Tune copies it: the folder may be the function's own."""
    file = folder / ORIGIN_FILE
    try:
        with suppress(OSError):  # a folder that cannot be written to
            file.write_text(text, encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            file.unlink(missing_ok=True)


@contextmanager
def _checkpoint_folder(checkpoint: Any) -> Iterator[Path]:
    """Give a folder that holds the checkpoint; Tune copies it before `report` returns."""
    if isinstance(checkpoint, Path) or (isinstance(checkpoint, str) and Path(checkpoint).is_dir()):
        if not Path(checkpoint).is_dir():
            raise RayNodeError(f"report(checkpoint={str(checkpoint)!r}): there is no such folder")
        yield Path(checkpoint)
        return
    folder = Path(tempfile.mkdtemp(prefix="raynode-checkpoint-"))
    try:
        with (folder / OBJECT_FILE).open("wb") as stream:
            _dump(checkpoint, stream)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _dump(checkpoint: Any, stream: BinaryIO) -> None:
    try:
        cloudpickle.dump(checkpoint, stream)
    except OSError:
        raise
    except Exception as error:
        parts = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
        guilty = next((f", at {name!r} a {type(value).__name__}" for name, value in parts if not _pickles(value)), "")
        raise RayNodeError(
            f"the checkpoint, a {type(checkpoint).__name__}, cannot be pickled{guilty}: {type(error).__name__}: {error}"
        ) from error


def _pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True
