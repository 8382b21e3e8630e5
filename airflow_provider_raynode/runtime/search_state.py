"""The state of a search: written in whole sets, and proved to be the search's own before an attempt goes on from it.

Tune writes a search's state as several files: the trials, the searcher, the callbacks. What goes on from files of two
moments repeats trials or loses them; what goes on from another search's files gives another node's result.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType
from ray import cloudpickle

from airflow_provider_raynode.exceptions import SearchStateError
from airflow_provider_raynode.runtime.lease import may_write
from airflow_provider_raynode.spec import NodeSpec
from airflow_provider_raynode.work import work_of

log = logging.getLogger(__name__)

# A file of a set, `<kind>-<set>.<ext>`; Tune takes the last set by name.
_FILE = re.compile(r"(experiment_state|callback-states|basic-variant-state|search_gen_state|searcher-state)-(.+)\.\w+")
_TUNER = "tuner.pkl"
_REMEDY = "Set on_change='restart' on the node and clear it, fan-out too, to start anew, or trigger a new DAG run"
_FIRST = f"{1:010}"
# Key of the observer's state that says whose it is.
SEARCH_KEY = "search"
# Number of the last set of each experiment that this process has read or written, by the experiment's path.
_last_set: dict[str, int] = {}


@dataclass(frozen=True)
class SearchState:
    """A state that a search can go on from: its trials by id."""

    trials: frozenset[str]


class _DamagedError(Exception):
    """A set cannot be gone on from."""


def search_of(spec: NodeSpec) -> dict[str, Any]:
    """Return what the state of a search says of whose it is: the search, and the digests of its work."""
    return {"id": spec.search_id, "work": work_of(spec)}


def own_state(spec: NodeSpec, folder: str, filesystem: FileSystem) -> SearchState | None:
    """Return the state in the search's folder, None where there is none: then the folder is empty.

    What a killed driver has left unfinished in it is removed: sets that are not whole, where an earlier one is, and the
    folders of trials that the state knows nothing of.

    :raises SearchStateError: the state is another search's, of other work, or damaged, and `spec.on_change` does not
        say that the search then starts anew.
    """
    entries = {entry.base_name: entry for entry in filesystem.get_file_info(FileSelector(folder, allow_not_found=True))}
    files = {name for name, entry in entries.items() if entry.type == FileType.File and entry.size}
    try:
        state = _newest(spec, folder, files, filesystem)
    except SearchStateError as error:
        if spec.on_change != "restart":
            raise
        log.warning("%s: on_change is 'restart', so it is removed, and the search starts anew", _first(error))
        state = None
    if state is None:
        if entries:
            filesystem.delete_dir_contents(folder)
        _last_set.pop(folder, None)
        return None
    for name, entry in entries.items():
        if entry.type == FileType.Directory and name.startswith(spec.trial_prefix) and name not in state.trials:
            filesystem.delete_dir(entry.path)
    return state


def _first(error: Exception) -> str:
    return str(error).removesuffix(f". {_REMEDY}")


def _newest(spec: NodeSpec, folder: str, files: set[str], filesystem: FileSystem) -> SearchState | None:
    """Return the newest whole set's state, and remove what is newer."""
    sets = _sets(files)
    if not any("experiment_state" in kinds for kinds in sets.values()):
        return None  # killed before it had written one
    damage = None if _TUNER in files else f"{_TUNER} is missing"
    broken: list[str] = []
    for name in sorted(sets, reverse=True) if damage is None else ():
        try:
            state = _read(spec, folder, sets[name], filesystem)
        except _DamagedError as error:
            damage = damage or str(error)
            broken += sets[name].values()
            continue
        if broken:
            log.warning("The search's last state is not whole (%s): going on from the one before", damage)
        for file in broken:
            filesystem.delete_file(f"{folder}/{file}")
        _last_set[folder] = int(name) if name.isdigit() else 0
        return state if state.trials else None
    if set(sets) == {_FIRST} and _TUNER in files:
        return None  # killed while it wrote the first one, when no trial had run
    raise damaged(folder, damage or "no set of its files is whole")


def _sets(files: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the files of each set by kind."""
    sets: dict[str, dict[str, str]] = {}
    for file in files:
        if match := _FILE.fullmatch(file):
            sets.setdefault(match.group(2), {})[match.group(1)] = file
    return sets


def _read(spec: NodeSpec, folder: str, kinds: Mapping[str, str], filesystem: FileSystem) -> SearchState:
    """Return the state of a set.

    :raises SearchStateError: it is another search's.
    :raises _DamagedError: it is not whole.
    """

    def data(kind: str) -> bytes:
        if kind not in kinds:
            raise _DamagedError(f"{kind} is missing beside {', '.join(sorted(kinds.values()))}")
        with filesystem.open_input_stream(f"{folder}/{kinds[kind]}") as stream:
            return bytes(stream.read())

    try:
        written = json.loads(data("experiment_state"))
        trials = [json.loads(trial)["trial_id"] for trial, _ in written["trial_data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedError(f"{kinds['experiment_state']} cannot be read ({_said(error)})") from error
    if foreign := [trial for trial in trials if not trial.startswith(spec.trial_prefix)]:
        raise SearchStateError(
            f"the state in {folder} is not this search's: {len(foreign)} of its {len(trials)} trials ({foreign[0]}, …) "
            f"are another search's, this one's ids begin with {spec.trial_prefix}. Going on with it would give another "
            f"node's result. {_REMEDY}"
        )
    try:
        callbacks = cloudpickle.loads(data("callback-states"))
        found = next(state[SEARCH_KEY] for state in callbacks.values() if state and SEARCH_KEY in state)
        whose, work = found["id"], dict(found["work"])
    except _DamagedError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise _DamagedError(f"{kinds['callback-states']} cannot be read ({_said(error)})") from error
    _check(spec, folder, whose, work)
    for kind in ("basic-variant-state",) if "basic-variant-state" in kinds else ("search_gen_state", "searcher-state"):
        try:
            cloudpickle.loads(data(kind))
        except _DamagedError:
            raise
        except Exception as error:
            raise _DamagedError(f"{kinds[kind]} cannot be read ({_said(error)})") from error
    return SearchState(frozenset(trials))


def _check(spec: NodeSpec, folder: str, whose: str, work: Mapping[str, str]) -> None:
    if whose != spec.search_id:
        raise SearchStateError(
            f"the state in {folder} is not this search's: it is that of search {whose:.16}…, this one is "
            f"{spec.search_id:.16}…. Going on with it would give another node's result. {_REMEDY}"
        )
    # By what both know: a newer version of this package may name more.
    changed = [name for name, digest in work_of(spec).items() if work.get(name, digest) != digest]
    if changed:
        raise SearchStateError(
            f"the state in {folder} is of other work: {', '.join(changed)} changed since it was written. {_REMEDY}"
        )


def damaged(folder: str, reason: str | Exception) -> SearchStateError:
    """Return the error of a state that cannot be read."""
    said = _said(reason) if isinstance(reason, Exception) else reason
    return SearchStateError(f"the state of the search in {folder} is damaged: {said}. {_REMEDY}")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def read_back(expected: SearchState, found: Iterable[str]) -> None:
    """Check that Tune goes on with all trials of a state: where it cannot read one, it begins another search instead.

    :raises SearchStateError: trials are missing.
    """
    missing = sorted(expected.trials - set(found))
    if missing:
        raise SearchStateError(
            f"Tune could not read the search's state back: {len(missing)} of its {len(expected.trials)} trials "
            f"({missing[0]}, …) are missing; its own error is in the log above. Trigger a new DAG run"
        )


def keep_states_whole() -> None:
    """Make Tune write each state as a set of its own, which is on storage as a whole before the one before goes.

    By itself it overwrites one set, file by file, also while the thread that copies it to storage reads it: a driver
    that is killed meanwhile leaves files of two moments, or half a file. The number in a set's name counts on from the
    set that was restored, so that no clock says which is the last; and a restored search stages its sets in a folder of
    its own, not in the one where its killed driver has left whatever it was about to write.
    """
    from ray.train._internal.storage import _FilesystemSyncer
    from ray.tune.execution.experiment_state import _ExperimentCheckpointManager
    from ray.tune.execution.tune_controller import TuneController

    if _ExperimentCheckpointManager.sync_up_experiment_state.__module__ == __name__:
        return
    write = _ExperimentCheckpointManager.sync_up_experiment_state
    upload = _FilesystemSyncer._sync_up_command
    restore: Any = TuneController._restore_trials

    def sync_up_experiment_state(self: Any, save_fn: Any, force: bool = False, wait: bool = False) -> None:
        syncer = self._storage.syncer
        if force or self._should_force_sync_up:
            with suppress(Exception):  # the next write tells of a failed one
                syncer.wait()
        elif syncer._should_continue_existing_sync():
            return
        path = self._storage.experiment_fs_path
        staging = Path(self._storage.experiment_driver_staging_path)

        def save() -> None:
            number = _last_set[path] = _last_set.get(path, 0) + 1
            save_fn.__self__._session_str = f"{number:010}"
            save_fn()
            for file in _older(staging, number):
                (staging / file).unlink(missing_ok=True)

        write(self, save, force, wait)

    def _sync_up_command(self: Any, local_path: str, uri: str, exclude: Any = None) -> tuple[Any, dict[str, Any]]:
        command, arguments = upload(self, local_path, uri, exclude)
        return _upload, {"command": command, "arguments": arguments}

    def _restore_trials(self: Any, experiment_state: Any) -> Any:
        own = self._storage._timestamp
        trials = restore(self, experiment_state)
        self._storage._timestamp = own
        for trial in trials:
            trial.storage._timestamp = own
            trial.init_local_path()
        return trials

    for owner, method in (
        (_ExperimentCheckpointManager, sync_up_experiment_state),
        (_FilesystemSyncer, _sync_up_command),
        (TuneController, _restore_trials),
    ):
        setattr(owner, method.__name__, method)


def _upload(command: Any, arguments: dict[str, Any]) -> None:
    """Copy a folder to storage as Tune does, and then remove from there the set before the one that it holds."""
    may_write()
    command(**arguments)
    local = Path(arguments["local_path"])
    names = {path.name for path in local.iterdir()} if local.is_dir() else set()
    for name in _sets(names):
        if not name.isdigit():
            continue
        for file in _sets(names)[name].values():
            with suppress(OSError):
                arguments["fs"].delete_file(
                    f"{arguments['fs_path']}/{file.replace(f'-{name}.', f'-{int(name) - 1:010}.')}"
                )


def _older(folder: Path, number: int) -> list[str]:
    """Return the files of the sets before one, in Tune's staging folder."""
    sets = _sets(path.name for path in folder.iterdir())
    return [file for name, kinds in sets.items() if name != f"{number:010}" for file in kinds.values()]
