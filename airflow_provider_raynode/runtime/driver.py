"""The driver: the entrypoint of a node's Ray job. Reads the spec, runs the work, writes the result."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NoReturn

from airflow_provider_raynode import __version__
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import ConfigError, RayNodeError
from airflow_provider_raynode.runtime.admission import Admission
from airflow_provider_raynode.runtime.driver_log import show_log
from airflow_provider_raynode.runtime.lease import Lease, held_by_search
from airflow_provider_raynode.runtime.work import Job, work_of
from airflow_provider_raynode.spec import (
    SECRETS_FILE_VARIABLE,
    STOPPED,
    NodeFailure,
    NodeProgress,
    NodeResult,
    NodeSpec,
    SealedSecrets,
    Versions,
    seal,
)

log = logging.getLogger("airflow_provider_raynode.driver")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# How long a driver that is ended tries to write its result.
_SEAL_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one attempt of a node; the exit code is 0 for a result, 1 for a failure."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_raynode.runtime")
    parser.add_argument("--spec", required=True, help="URI of spec.json")
    parser.add_argument("--sha256", required=True, help="its digest")
    parser.add_argument("--local", action="store_true", help="with an embedded Ray of its own")
    parser.add_argument("--deadline", type=float, metavar="SECONDS", help="after which its RayJob ends, from the start")
    parser.add_argument("--parent", type=int, help="pid of the process whose end ends this one")
    args = parser.parse_args(argv)
    _prepare_environment()
    show_log()
    if args.parent:
        from airflow_provider_raynode.runtime.embedded import end_with

        end_with(args.parent)
    try:
        spec, catalog = read_spec(args.spec, args.sha256)
        return Driver(spec, args.sha256, catalog, embedded=args.local, deadline_s=args.deadline).run()
    except RayNodeError as error:
        log.error("raynode: FAILED: %s", error)
    return 1


def read_spec(uri: str, sha256: str) -> tuple[NodeSpec, Catalog]:
    """Return the verified spec and the catalog that it names.

    :raises SpecError: the digest differs, or it is not a spec of this version.
    :raises CatalogError: it cannot be read.
    """
    folder, _, _ = uri.rpartition("/")
    spec = NodeSpec.from_bytes(Catalog(folder).read_bytes(uri), sha256=sha256, source=uri)
    return spec, Catalog(spec.catalog_uri).at(spec.attempt_prefix)


class Driver:
    """One attempt, phase by phase."""

    def __init__(
        self, spec: NodeSpec, sha256: str, attempt: Catalog, *, embedded: bool, deadline_s: float | None = None
    ) -> None:
        self.spec = spec
        self._sha256 = sha256
        self._drivers = attempt.at(spec.drivers_prefix)
        self._lease = Lease(self._drivers, spec.submission_id, lost=self._end_without_lease, work=spec.config.work)
        self._attempt = attempt.guarded(self._lease.check)
        self._embedded = embedded
        self._deadline_s = deadline_s
        self._started = datetime.now(UTC)
        self._timings: dict[str, float] = {}
        self._secrets = delivered(spec)
        self._ending = threading.Lock()
        self._work = work_of(
            Job(spec, self._attempt, embedded, secrets=self._secrets, lease=self._lease, phase=self._phase)
        )

    def run(self) -> int:
        """Run and write `result.json`, whatever happens; return the exit code.

        Where the attempt has its result, or gets it from another driver meanwhile, this one ends with that.
        """
        self._handle_signals()
        try:
            with self._watched():
                result = self._found() or self._result(self._run())
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # a module of the author's may exit when imported
            result = self._result(_failure_fields(error))
        for number in _STOP_SIGNALS:  # what is decided is written
            signal.signal(number, signal.SIG_IGN)
        self._ending.acquire()
        if self._lease.held:
            self._delete_secrets()
            self._seal(result)
        failure = result.failure
        if failure is None:
            log.info("raynode: SUCCEEDED%s", f", best trial {result.best.trial_id}" if result.best else "")
            return 0
        if failure.traceback:
            log.error("%s", failure.traceback.rstrip())
        log.error("raynode: FAILED: %s: %s", failure.type, failure.message)
        return 1

    def _found(self) -> NodeResult | None:
        """Return the result that there is without any work of this driver's; else the work is its own from now on."""
        admission = Admission(self.spec, self._sha256, self._attempt)
        result = admission.result()
        if result is None:
            self._watch.waits_for = f"another one that works on its {self.spec.config.work}"
            held = admission.wait(self._lease)
            self._watch.waits_for = ""
            result = admission.result()
            if held and result is not None:
                self._lease.release()
        if result is not None:
            log.info(
                "raynode: the job %s ended before as %s: no %s is run, and its result stays as it is",
                result.submission_id,
                result.state,
                self._work.unit,
            )
            return result
        held_by_search(self._lease)
        if (earlier := admission.finished_before()) is not None:
            log.info(
                "raynode: attempt %d of the same %s has succeeded meanwhile", earlier.attempt, self.spec.config.work
            )
            return admission.adopted(earlier)
        admission.set_aside(self._drivers, self._lease.number, self._attempt.write_bytes)
        return None

    def _handle_signals(self) -> None:
        """On SIGTERM and SIGINT: write the result at once and end.

        Not by an exception: Tune would first wait for its trials, and a trial that computes does not listen. Ray ends
        the workers of a driver that is gone; of an embedded Ray, nothing is left when this process ends.
        """

        def stop(number: int, _: object) -> None:
            for each in _STOP_SIGNALS:
                signal.signal(each, signal.SIG_IGN)
            self._end_stopped(number)

        for number in _STOP_SIGNALS:
            signal.signal(number, stop)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear the same signals in a thread: while Ray starts, this one waits in C++ code, where no handler runs."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

        def listen() -> None:
            while data := os.read(reading, 1):
                if data[0] in _STOP_SIGNALS:
                    self._end_stopped(data[0])
            os.close(reading)

        threading.Thread(target=listen, name="raynode-signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writing)

    def _end_stopped(self, number: int) -> None:
        name = signal.Signals(number).name
        work = self.spec.config.work
        self._end(NodeFailure(type=STOPPED, message=f"the job was stopped ({name}) before its {work} ended"))

    def _end(self, failure: NodeFailure) -> None:
        """End this process at once with `failure` as its result; called from a signal handler or the watch's thread."""
        if not self._ending.acquire(blocking=False):
            return  # the result is being written
        os.write(1, f"raynode: FAILED: {failure.type}: {failure.message}\n".encode())
        if self._lease.held:
            # A storage that does not answer holds nothing up.
            late = threading.Timer(_SEAL_S, self._exit)
            late.daemon = True
            late.start()
            self._delete_secrets()
            with suppress(Exception):
                self._seal(self._result({**self._work.cut_short(failure), "failure": failure}))
        self._exit()

    def _end_without_lease(self, reason: str) -> NoReturn:
        """End this process at once, writing nothing any more: another driver may do the work."""
        os.write(1, f"raynode: FAILED: LeaseLost: {reason}; this driver ends, and leaves all as it is\n".encode())
        self._exit()

    def _exit(self) -> NoReturn:
        if self._embedded:
            from airflow_provider_raynode.runtime.embedded import kill

            kill()
        os._exit(1)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Hold the job to its limits, in a thread: the work itself may be deep in Ray."""
        from airflow_provider_raynode.runtime.limits import Watch
        from airflow_provider_raynode.runtime.workflow_watch import WorkflowWatch

        self._watch = Watch(
            self.spec,
            self._attempt,
            self._work,
            end=self._end,
            attaches=not self._embedded,
            deadline_s=self._deadline_s,
        )
        watches = [self._watch, WorkflowWatch.of_pod(end=self._end)]
        for each in watches:
            if each is not None:
                each.start()
        try:
            yield
        finally:
            for each in watches:
                if each is not None:
                    each.stop()

    def _delete_secrets(self) -> None:
        if self._secrets is not None:
            with suppress(RayNodeError):
                self._attempt.delete(self._secrets.uri)

    def _result(self, fields: dict[str, Any]) -> NodeResult:
        failure: NodeFailure | None = fields.get("failure")
        return NodeResult(
            submission_id=self.spec.submission_id,
            attempt=self.spec.attempt,
            spec_sha256=self._sha256,
            state="FAILED" if failure else "SUCCEEDED",
            metric=self.spec.config.metric,
            mode=self.spec.config.mode,
            started=self._started,
            ended=datetime.now(UTC),
            timings_s={name: round(seconds, 3) for name, seconds in self._timings.items()},
            versions=_versions(),
            resources=self._work.resources,
            restored=self._work.restored,
            # KubeRay names the cluster so in each of its pods.
            cluster=os.environ.get("RAY_CLUSTER_NAME") or None,
            **fields,
        )

    def _seal(self, result: NodeResult) -> None:
        """Write the result, and let another driver have the work."""
        self._lease.confirm()
        try:
            self._attempt.write_bytes(f"{self.spec.attempt_prefix}/result.json", seal(result))
            if result.state == "SUCCEEDED":
                with suppress(Exception):  # what is left is only in the way
                    self._work.tidy()
        finally:
            self._lease.release()

    def _run(self) -> dict[str, Any]:
        self._write_starting()
        with self._phase("load"):
            self._check_libraries()
            self._work.prepare()
        from airflow_provider_raynode.runtime.output import Output

        with Output() as output, self._ray():
            output.connected()
            try:
                return self._work.run(output)
            finally:
                with self._phase("drain"):
                    output.drain()

    def _check_libraries(self) -> None:
        """Check that what the config names can run here.

        :raises ConfigError: a library is missing; the message says on which machine.
        """
        missing = self.spec.config.missing_libraries()
        if missing and not self._embedded:
            place = f"host {platform.node()}, Python {platform.python_version()}"
            raise ConfigError("\n".join(each.on_cluster(place) for each in missing))
        self.spec.config.check_libraries()

    @contextmanager
    def _ray(self) -> Iterator[None]:
        import ray

        from airflow_provider_raynode.runtime import embedded as embedded_ray

        if ray.is_initialized():  # the process is connected already, and stays so
            yield
            return
        with self._phase("connect"):
            if self._embedded:
                with self._listening():
                    folder = embedded_ray.start()
            else:
                ray.init(address="auto", log_to_driver=True, logging_level=logging.WARNING)
        # Ray installs handlers of its own when it connects.
        self._handle_signals()
        try:
            yield
        finally:
            if self._embedded:
                embedded_ray.remove(folder)
            else:
                ray.shutdown()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._timings[name] = time.perf_counter() - start

    def _write_starting(self) -> None:
        progress = NodeProgress(
            work=self.spec.config.work,
            phase="starting",
            metric=self.spec.config.metric,
            mode=self.spec.config.mode,
            updated=datetime.now(UTC),
        )
        self._attempt.write_bytes(f"{self.spec.attempt_prefix}/progress.json", progress.to_bytes())


def delivered(spec: NodeSpec) -> SealedSecrets | None:
    """Return where the encrypted half of the secrets lies: the job that brings the key names the file."""
    name = os.environ.get(SECRETS_FILE_VARIABLE, "")
    if not spec.secrets or not re.fullmatch(r"secrets-[0-9a-f]+\.bin", name):
        return None
    return SealedSecrets(uri=f"{spec.attempt_prefix}/{name}", names=spec.secrets)


def _failure_fields(error: BaseException) -> dict[str, Any]:
    """Return the result's fields for an error: ours by its message, a foreign one with its traceback."""
    found = getattr(error, "found", None)
    fields = dict(vars(found)) if found is not None else {}
    failure = getattr(error, "failure", None)
    if failure is None:
        from airflow_provider_raynode.runtime.failures import error_of_search

        failure = error_of_search(error)
    return {**fields, "failure": failure}


def _versions() -> Versions:
    ray = sys.modules.get("ray")
    return Versions(
        python=platform.python_version(), package=__version__, ray=getattr(ray, "__version__", None) if ray else None
    )


def _prepare_environment() -> None:
    """Set what Ray reads when it is imported or connects."""
    defaults = {
        # Every line that a trial prints reaches the log: Ray would fold equal lines of several workers into one.
        "RAY_DEDUP_LOGS": "0",
        "RAY_COLOR_PREFIX": "0",
        # Each failed trial has a line of the node's own, not Ray's stack.
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        # Stops are ours to handle: Tune's own handler would go on to a result that looks complete.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # The metric is checked in the trial, where a miss is that trial's error and not the end of the search.
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
