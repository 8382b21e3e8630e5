"""The lease on a node's work: one driver at a time works on it; one that has died, or is cut off, loses it.

Each driver that works on a search creates the next numbered file in the search's folder of drivers, which the storage
lets one of them do, and then rewrites it every few seconds with a counter. The highest number holds the lease. Who
waits for it watches the counter by a clock of its own: no decision compares the clocks of two machines.

The rules that keep two drivers from writing at once:

- The holder renews before it looks whether a higher number is there, and ends itself at once when one is. Before each
  write it makes sure that its last renewal is young; before a write that matters it renews.
- Who takes over creates its file before it looks at the old counter once more. Where that has moved after all, it waits
  until the other, which sees the new file at its next renewal, has ended.
- A holder that cannot renew ends itself before anybody may take over.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError

log = logging.getLogger("airflow_provider_raynode.driver")

# Seconds after which a driver whose counter has not moved has lost its lease …
LIFE_S = 60.0
# … and after which one that could not renew it ends itself.
FENCE_S = 45.0
# Between two renewals; on remote storage each is a few requests.
_LOCAL_RENEWAL_S, _REMOTE_RENEWAL_S = 3.0, 5.0
# Two that took the lease together, where the storage does not tell, see it soon.
_FIRST_RENEWAL_S = 1.0
_RETRY_S = 1.0
_LOCAL_LOOK_S, _REMOTE_LOOK_S = 0.25, 2.0
# How long a storage that cannot create exclusively is given, until what two have written is decided.
_SETTLE_S = 2.0
# A record has a fixed length, so that it can be rewritten in its place.
_LENGTH = 1024
_NAME = re.compile(r"(\d{4,})\.json")
WORKS, RELEASED = "works", "released"


class LeaseLostError(CatalogError):
    """A driver that does not work on the search, or not any more, was about to write."""


# The lease on the search that Tune runs in this process; none in a trial's.
_of_search: list[Lease] = []


def held_by_search(lease: Lease) -> None:
    """Let `may_write` ask a lease, until it is given back."""
    _of_search[:] = [lease]


def may_write() -> None:
    """Make sure, before Tune's state is written, that this process may write it; see `Lease.check`."""
    for lease in _of_search:
        lease.check()


@dataclass(frozen=True)
class Holder:
    """The newest driver of a search, as its file says."""

    number: int
    record: bytes
    token: str = ""
    submission_id: str = "?"
    host: str = "?"
    machine: str = ""
    pid: int = 0
    process: str = ""
    state: str = WORKS

    @property
    def has_ended(self) -> bool:
        """Whether it is known to work no more: it says so, or it ran on this machine, and is gone."""
        if self.state == RELEASED:
            return True
        return bool(self.process) and self.machine == this_machine() and start_of(self.pid) != self.process

    def __str__(self) -> str:
        return f"the driver of job {self.submission_id} (pid {self.pid} on {self.host})"


def boot_clock() -> float:
    """Return seconds of a clock that nobody sets and that runs on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right of one driver to work on a search.

    :param folder: the catalog at the search's folder of drivers.
    :param submission_id: this driver's job, for those who wait.
    :param lost: ends this process; called from whatever thread finds out, with the reason.
    :param work: the word for what the node runs, for messages.
    :param clock: gives seconds; see `boot_clock`.
    :param sleep: waits for seconds.
    """

    def __init__(
        self,
        folder: Catalog,
        submission_id: str,
        *,
        lost: Callable[[str], NoReturn],
        work: str = "search",
        life_s: float = LIFE_S,
        fence_s: float = FENCE_S,
        renewal_s: float | None = None,
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._submission_id = submission_id
        self._lost = lost
        self._work = work
        self._life_s = life_s
        self._fence_s = fence_s
        self._renewal_s = renewal_s or (_LOCAL_RENEWAL_S if folder.is_local else _REMOTE_RENEWAL_S)
        self._look_s = _LOCAL_LOOK_S if folder.is_local else _REMOTE_LOOK_S
        self._clock = clock
        self._sleep = sleep
        self._token = secrets.token_hex(16)
        self._counter = 0
        self._renewed = 0.0
        # Seconds since the last renewal in which this process was awake; see `_guard_time`.
        self._awake_s = 0.0
        self._ended = threading.Event()
        # A signal's handler may renew while the thread that it interrupts does.
        self._lock = threading.RLock()
        self.number = 0
        """Which of the search's drivers this is, from 1; 0 for one that has not held the lease."""

    @property
    def held(self) -> bool:
        """Whether this driver works on the search."""
        return self.number > 0 and not self._ended.is_set()

    # -- taking it -----------------------------------------------------------------------------------------------------

    def acquire(self, *, over: Callable[[], bool] = lambda: False) -> bool:
        """Take the lease, and hold it from now on; wait while another driver holds it.

        :param over: is asked at each look; true ends the wait.
        :return: whether this driver holds the lease; False where `over` said that there is nothing to wait for.
        """
        seen: Holder | None = None
        since, told = 0.0, 0
        while True:
            try:
                holder = self._newest()
            except CatalogError:
                if seen is None:
                    raise
                holder = None  # what cannot be read cannot be judged
                since = self._clock()
            if holder is not None and (holder.number == 0 or holder.has_ended):
                if self._take(holder.number + 1):
                    return True
                continue
            if holder is not None and (seen is None or holder.record != seen.record):
                seen, since = holder, self._clock()
            if seen is not None and told != seen.number:
                told = seen.number
                log.info(
                    "raynode: waiting: %s works on this %s. This one goes on when that one has ended, or has "
                    "not been heard of for %g s",
                    seen,
                    self._work,
                    self._life_s,
                )
            if over():
                return False
            if holder is not None and self._clock() - since >= self._life_s and self._take(holder.number + 1, holder):
                return True
            self._sleep(self._look_s)

    def _take(self, number: int, silent: Holder | None = None) -> bool:
        """Create the file of a number; return whether it is this driver's.

        :param silent: who held the lease and was not heard of for its life.
        """
        begin = self._clock()
        if not self._folder.create_bytes(self._uri(number), self._record(WORKS)) and not self._is_own(number):
            return False
        if not self._folder.creates_exclusively:
            self._sleep(_SETTLE_S)
            if not self._is_own(number):
                return False
        self.number, self._renewed = number, begin
        for run in (self._renew_on, self._guard_time):
            threading.Thread(target=run, name=f"raynode-lease-{run.__name__}", daemon=True).start()
        if silent is not None:
            log.info("raynode: %s has not been heard of for %g s: taking over its %s", silent, self._life_s, self._work)
            self._await_stillness(silent)
        return True

    def _await_stillness(self, holder: Holder) -> None:
        """Wait for the end of a holder that has moved after all: it sees the newer file, and ends."""
        record, since = holder.record, self._clock() - self._life_s
        while True:
            with suppress(CatalogError):
                now = self._read(holder.number)
                if now.has_ended:
                    return
                if now.record != record:
                    record, since = now.record, self._clock()
                elif self._clock() - since >= self._life_s:
                    return
            self._sleep(self._look_s)

    # -- holding it ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Make sure, before a write, that this driver may write; it ends the process when it may not.

        :raises LeaseLostError: it has none yet, or has given it back.
        """
        if not self.held:
            raise LeaseLostError(f"this driver does not work on the {self._work}: it writes nothing")
        if self._clock() - self._renewed > self._fence_s:
            self.confirm()

    def confirm(self) -> None:
        """Renew the lease now, before a write that matters; see `check`."""
        with self._lock:
            try:
                self._renew()
            except CatalogError as error:
                if self._clock() - self._renewed > self._fence_s:
                    self._lose(f"its lease could not be renewed for {self._clock() - self._renewed:.0f} s: {error}")
                log.warning("raynode: the lease on the %s cannot be renewed: %s", self._work, error)

    def release(self) -> None:
        """Give the lease back: whoever waits takes it at once."""
        with self._lock:
            if not self.held:
                return
            self._ended.set()
            if self in _of_search:
                _of_search.remove(self)
            with suppress(CatalogError):
                self._folder.rewrite_bytes(self._uri(self.number), self._record(RELEASED))

    def _lose(self, reason: str) -> NoReturn:
        self._ended.set()
        self._lost(reason)

    def _renew(self) -> None:
        begin = self._clock()
        if not self._folder.is_local and not self._is_own(self.number):
            # Where storage does not create exclusively, another may have written the same name.
            self._lose(f"{self._read(self.number)} has taken over the {self._work}")
        self._counter += 1
        self._folder.rewrite_bytes(self._uri(self.number), self._record(WORKS))
        if self._folder.exists(self._uri(self.number + 1)):
            self._lose(f"{self._read(self.number + 1)} has taken over the {self._work}")
        self._renewed, self._awake_s = begin, 0.0

    def _renew_on(self) -> None:
        wait, told = min(_FIRST_RENEWAL_S, self._renewal_s), False
        while not self._ended.wait(wait):
            with self._lock:
                if self._ended.is_set():
                    return
                try:
                    self._renew()
                    wait, told = self._renewal_s, False
                except CatalogError as error:
                    wait = min(_RETRY_S, self._renewal_s)
                    if not told:
                        log.warning(
                            "raynode: the lease on the %s cannot be renewed; if that lasts for %g s, this driver "
                            "ends, since another may take over: %s",
                            self._work,
                            self._fence_s,
                            error,
                        )
                        told = True

    def _guard_time(self) -> None:
        """End the process when it was awake for too long without a renewal.

        A process that was stopped and goes on is first given the chance to renew: nobody may have waited.
        """
        tick = min(0.5, self._fence_s / 10)
        last = self._clock()
        while not self._ended.wait(tick):
            now = self._clock()
            self._awake_s += min(now - last, 2 * tick)
            last = now
            if self._awake_s > self._fence_s and not self._ended.is_set():
                self._lose(
                    f"its lease could not be renewed for {now - self._renewed:.0f} s: the catalog does not answer"
                )

    # -- the files -----------------------------------------------------------------------------------------------------

    def _uri(self, number: int) -> str:
        return f"{self._folder.prefix_uri}/{number:04}.json"

    def _record(self, state: str) -> bytes:
        fields = {
            "token": self._token,
            "submission_id": self._submission_id,
            "host": platform.node(),
            "machine": this_machine(),
            "pid": os.getpid(),
            "process": start_of(os.getpid()) or "",
            "counter": self._counter,
            "state": state,
        }
        return json.dumps(fields).encode().ljust(_LENGTH - 1) + b"\n"

    def _newest(self) -> Holder:
        """Return the driver with the highest number; number 0 where there is none."""
        names = (uri.rpartition("/")[2] for uri in self._folder.list(self._folder.prefix_uri))
        number = max((int(match.group(1)) for name in names if (match := _NAME.fullmatch(name))), default=0)
        return self._read(number) if number else Holder(0, b"")

    def _read(self, number: int) -> Holder:
        data = self._folder.read_bytes(self._uri(number))
        try:
            fields: dict[str, Any] = json.loads(data)
            named = {name: fields[name] for name in Holder.__dataclass_fields__ if name in fields}
            return Holder(**{**named, "number": number, "record": data})
        except (ValueError, TypeError):
            return Holder(number, data)  # half a record: who wrote it is not known, but whether it moves

    def _is_own(self, number: int) -> bool:
        try:
            return self._read(number).token == self._token
        except CatalogError:
            if self._folder.exists(self._uri(number)):
                raise
            return False


@cache
def this_machine() -> str:
    """Return what two processes share that see each other's pids: a host, since its start, and a namespace of pids."""
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def start_of(pid: int) -> str | None:
    """Return when a process of this machine started, in words to compare; None where there is none, or a dead one."""
    try:
        # pid (name) state ppid …, and the 22nd field; the name may have blanks and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.3f}"
    except psutil.Error:
        return None
