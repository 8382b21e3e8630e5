"""Whether a search ended as its config says it may, and what became of each of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from airflow_provider_raynode.config.tune import RayTune
from airflow_provider_raynode.spec import Completion, Ending, NodeFailure

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

# A trial's status in the table and the record: Ray's words, and two that Ray does not have.
FINISHED = "TERMINATED"
EARLY_STOPPED = "EARLY_STOPPED"
FAILED = "ERROR"
CUT_OFF = "CUT_OFF"
NOT_BEGUN = "PENDING"

_FAILURES: Mapping[Ending, str] = {
    "fail_fast": "FailFast",
    "stalled": "SearchStalled",
    "searcher_finished": "SearchIncomplete",
    "incomplete": "SearchIncomplete",
    "stopped": "Stopped",
}


class SearchEnd:
    """How one search came to its end: decided once, by the first that has a reason.

    :param asked: number of its trials, None where a time budget says it.
    :param alone: whether no other job uses the resources and nobody adds any: the embedded Ray.
    """

    def __init__(self, search: RayTune, asked: int | None, *, alone: bool = False) -> None:
        self.search = search
        self.asked = asked
        self.alone = alone
        self.ending: Ending | None = None
        self.reason = ""
        self.failed_trial: str | None = None
        # The trials that were cut off, with the status that they had then.
        self.left: dict[Trial, str] = {}
        # Ids of the trials of an earlier attempt, as Tune read them back.
        self.read_back: set[str] = set()

    @property
    def decided(self) -> bool:
        """Whether the search is to end before Tune itself says so."""
        return self.ending is not None

    def decide(self, ending: Ending, reason: str) -> None:
        """End the search; a later reason does not count."""
        if self.ending is None:
            self.ending, self.reason = ending, reason

    def trial_failed(self, trial_id: str) -> None:
        """Take the failure of a trial for which no further try is left."""
        if self.search.failure.fail_fast and self.failed_trial is None:
            self.failed_trial = trial_id
            self.decide("fail_fast", f"the trial {trial_id} failed, and ray_tune.failure.fail_fast is on")

    def completion(self, statuses: Sequence[str]) -> Completion:
        """Return the account of a search that has ended.

        :param statuses: of its trials, as `status_of` gives them.
        """
        counts = Counter(statuses)
        ended = counts[FINISHED] + counts[EARLY_STOPPED] + counts[FAILED]
        ending, reason = self.ending, self.reason
        if ending is None and self.asked is not None and ended >= self.asked:
            ending, reason = "all_trials", "all trials ended"
        elif ending is None and ended == len(statuses):
            ending, reason = "searcher_finished", f"{self._searcher} proposed no further trial"
        elif ending is None:
            ending, reason = "incomplete", "Ray Tune ended the search before its trials"
        return Completion(
            asked=self.asked,
            finished=counts[FINISHED],
            early_stopped=counts[EARLY_STOPPED],
            failed=counts[FAILED],
            cut_off=counts[CUT_OFF],
            ending=ending,
            reason=reason,
        )

    @property
    def _searcher(self) -> str:
        algorithm = self.search.search_algorithm
        return algorithm.type if algorithm is not None else "the search"

    def failure(self, completion: Completion, failures: Mapping[str, NodeFailure]) -> NodeFailure | None:
        """Return why a search that ended so fails the node; None where the config lets it end so.

        :param failures: the errors of its failed trials, by id.
        """
        if completion.ending in ("all_trials", "time_budget"):
            return None
        if completion.ending in ("stalled", "searcher_finished") and self.search.failure.on_stall == "finish":
            return None
        first = failures.get(self.failed_trial or "") or next(iter(failures.values()), None)
        if completion.ending == "fail_fast" and first is not None and self.search.failure.fail_fast == "raise":
            return first
        because = f"; {first.trial_id}: {first.type}: {first.message}" if first is not None else ""
        remedy = ""
        if completion.ending in ("stalled", "searcher_finished"):
            remedy = (
                ". A retry goes on with the rest; with ray_tune.failure.on_stall: finish the node ends with what there "
                "is, and with other settings of the search algorithm or the scheduler the search may go on"
            )
        return NodeFailure(
            type=_FAILURES[completion.ending],
            message=f"the search ended before its trials: {completion.reason}. Trials: {completion.summary()}{because}"
            f"{remedy}",
            traceback=first.traceback if first is not None else "",
            trial_id=first.trial_id if first is not None else None,
        )


def status_of(trial: Trial, early_stopped: bool) -> str:
    """Return what became of a trial of a search that has ended.

    :param early_stopped: whether it was stopped before its function returned.
    """
    if trial.status == trial.ERROR:
        return FAILED
    if trial.status == trial.TERMINATED:
        return EARLY_STOPPED if early_stopped else FINISHED
    begun = trial.status == trial.RUNNING or "training_iteration" in (trial.last_result or {})
    return CUT_OFF if begun else NOT_BEGUN
