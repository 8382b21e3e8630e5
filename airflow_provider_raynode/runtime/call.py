"""One call of the node's function on a worker, in whatever it runs: secrets, masking, errors with its own frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from airflow_provider_raynode.catalog import Catalog, set_active
from airflow_provider_raynode.returns import Return
from airflow_provider_raynode.runtime.binding import bind
from airflow_provider_raynode.runtime.checkpoints import remove_copies
from airflow_provider_raynode.runtime.failures import describe, exits_told, to_raise
from airflow_provider_raynode.runtime.function import FunctionSource
from airflow_provider_raynode.runtime.secrets import NodeSecrets
from airflow_provider_raynode.runtime.session import Session, set_current
from airflow_provider_raynode.spec import NodeFailure, RunContext, SealedSecrets


@dataclass(frozen=True, kw_only=True)
class CallSetup:
    """What all calls of a node's function share; it travels to the workers.

    Ray may write it to files: of the secrets it holds where they are and their names, never a value.
    """

    function: FunctionSource
    run: RunContext
    attempt: int
    catalog_uri: str
    attempt_prefix: str
    returns: tuple[Return, ...] = ()
    submission_id: str = ""
    secrets: SealedSecrets | None = None
    # Which of the work's drivers runs the calls.
    driver: int = 1

    def catalog(self) -> Catalog:
        """Return the catalog at the attempt's folder."""
        return Catalog(self.catalog_uri).at(self.attempt_prefix)


# The secrets of the nodes whose function this process has called; they are read once.
_secrets: dict[str, NodeSecrets] = {}


def secrets_of(setup: CallSetup, catalog: Catalog) -> NodeSecrets | None:
    """Return the node's secrets, None where it declares none.

    :param catalog: the catalog at the attempt's folder.
    """
    if setup.secrets is None:
        return None
    if setup.submission_id not in _secrets:
        _secrets[setup.submission_id] = NodeSecrets(setup.secrets, setup.submission_id, catalog)
    return _secrets[setup.submission_id]


def call(
    setup: CallSetup,
    session: Session,
    config: Mapping[str, Any],
    inputs: Mapping[str, Any],
    *,
    args: Sequence[Any] = (),
    record: Callable[[NodeFailure], None],
    trial_id: str | None = None,
    rank: int | None = None,
    item: int | None = None,
) -> Any:
    """Call the function, let the session take what it returned, and return what that makes of it.

    :param config: the hyperparameters, where there are any.
    :param inputs: the further arguments, references loaded.
    :param args: those by position.
    :param record: keeps a failure where the driver finds it, also where the function ends its process.
    :param trial_id: whose failure it is; so are `rank` and `item`.
    """
    secrets = session.secrets
    set_current(session)
    set_active(session.catalog)
    try:
        function = setup.function.load()
        arguments = bind(function, config, inputs)
        if secrets is not None:
            secrets.export()
        masked = secrets.masked_output() if secrets is not None else nullcontext()
        with masked, exits_told(record, trial_id, rank=rank, item=item):
            return session.finish(function(*args, **arguments))
    except BaseException as error:
        if session.stopped:  # it was ended from outside: what its function makes of that is of no more use
            raise SystemExit(0) from None
        failure = describe(error, trial_id, str if secrets is None else secrets.mask, rank=rank, item=item)
        record(failure)
        safe = error if secrets is None else secrets.without_secrets(error)
        raised = to_raise(safe, failure)
        if raised is not error:
            raise raised from None
        raise
    finally:
        set_current(None)
        set_active(None)
        remove_copies()
