"""The lease on a search: who gets it, who waits, who loses it, and that who has lost it writes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError
from airflow_provider_raynode.runtime import lease as lease_module
from airflow_provider_raynode.runtime.lease import (
    FENCE_S,
    LIFE_S,
    Lease,
    LeaseLostError,
    held_by_search,
    may_write,
    start_of,
    this_machine,
)


class Clock:
    """A clock that only `sleep` moves; at each sleep something may happen."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now = 1000.0
        self.meanwhile = meanwhile

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.meanwhile()


class GoneError(Exception):
    """In place of the process's end."""


def gone(reason: str) -> NoReturn:
    raise GoneError(reason)


@pytest.fixture
def drivers(tmp_path: Path) -> Catalog:
    return Catalog(str(tmp_path)).at("dag/run/node/-1/attempt_1/drivers")


@pytest.fixture
def make(drivers: Catalog) -> Iterator[Callable[..., Lease]]:
    """Make leases whose threads do nothing for as long as a test lasts, and end them."""
    made: list[Lease] = []

    def lease(clock: Clock | None = None, **options: Any) -> Lease:
        clock = clock or Clock()
        options.setdefault("renewal_s", 1e6)
        options.setdefault("folder", drivers)
        folder, job = options.pop("folder"), options.pop("job", "job-a1")
        made.append(Lease(folder, job, lost=gone, clock=clock, sleep=clock.sleep, **options))
        return made[-1]

    yield lease
    for each in made:
        each._ended.set()


@pytest.fixture(autouse=True)
def _no_first_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "_FIRST_RENEWAL_S", 1e6)


def elsewhere(drivers: Catalog, number: int = 1) -> None:
    """Make the holder of a number one of another machine."""
    uri = f"{drivers.prefix_uri}/{number:04}.json"
    fields = {**json.loads(drivers.read_bytes(uri)), "machine": "another", "host": "pod-7"}
    drivers.write_bytes(uri, json.dumps(fields).encode().ljust(1023) + b"\n")


def test_the_first_gets_it_at_once(make: Callable[..., Lease], drivers: Catalog) -> None:
    clock = Clock()
    lease = make(clock)
    assert not lease.held
    assert lease.acquire()
    assert (clock.now, lease.number, lease.held) == (1000.0, 1, True)
    lease.check()
    record = drivers.read_bytes(f"{drivers.prefix_uri}/0001.json")
    assert len(record) == 1024
    assert json.loads(record)["pid"] == os.getpid()


def test_what_was_given_back_is_taken_without_a_wait(make: Callable[..., Lease]) -> None:
    first = make()
    assert first.acquire()
    first.release()
    assert not first.held
    with pytest.raises(LeaseLostError):
        first.check()
    clock = Clock()
    second = make(clock)
    assert second.acquire()
    assert (clock.now, second.number) == (1000.0, 2)
    first.release()  # a second time: nothing
    second.confirm()


def test_who_is_alive_is_waited_for(make: Callable[..., Lease], caplog: pytest.LogCaptureFixture) -> None:
    first = make(job="job-a1")
    assert first.acquire()
    looks = 0

    def renew() -> None:
        nonlocal looks
        looks += 1
        first.confirm()
        if looks == 1000:
            first.release()

    second = make(Clock(renew), job="job-a2")
    with caplog.at_level("INFO"):
        assert second.acquire()
    assert looks == 1000
    assert second.number == 2
    assert [record.message for record in caplog.records if "waiting" in record.message] == [
        f"raynode: waiting: the driver of job job-a1 (pid {os.getpid()} on {os.uname().nodename}) works on this "
        "search. This one goes on when that one has ended, or has not been heard of for 60 s"
    ]


def test_a_wait_ends_when_there_is_nothing_to_wait_for(make: Callable[..., Lease], drivers: Catalog) -> None:
    assert make().acquire()
    second = make()
    assert not second.acquire(over=lambda: True)
    assert not second.held
    assert len(drivers.list(drivers.prefix_uri)) == 1


def test_who_is_not_heard_of_loses_it_after_its_life(make: Callable[..., Lease], drivers: Catalog) -> None:
    first = make()
    assert first.acquire()
    elsewhere(drivers)
    clock = Clock()
    assert make(clock).acquire()
    assert 1000 + LIFE_S <= clock.now < 1000 + LIFE_S + 1
    # It is told at its next renewal, before it writes.
    first._clock.now += FENCE_S + 1  # type: ignore[attr-defined]
    with pytest.raises(GoneError, match="has taken over the search"):
        first.check()
    assert not first.held


def test_a_dead_process_of_this_machine_is_not_waited_for(drivers: Catalog, make: Callable[..., Lease]) -> None:
    script = (
        "import os, sys\n"
        "from airflow_provider_raynode.catalog import Catalog\n"
        "from airflow_provider_raynode.runtime.lease import Lease\n"
        "assert Lease(Catalog(sys.argv[1]).at(sys.argv[2]), 'job', lost=exit).acquire()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.Popen([sys.executable, "-c", script, drivers.uri, drivers.prefix])
    try:
        while start_of(ended.pid) is not None:  # also before it is waited for, as a zombie
            time.sleep(0.02)
        clock = Clock()
        lease = make(clock)
        assert lease.acquire()
        assert (clock.now, lease.number) == (1000.0, 2)
    finally:
        assert ended.wait() == -signal.SIGKILL


def test_another_process_under_the_same_pid_is_not_the_holder(make: Callable[..., Lease], drivers: Catalog) -> None:
    assert make().acquire()
    uri = f"{drivers.prefix_uri}/0001.json"
    fields = {**json.loads(drivers.read_bytes(uri)), "process": "1"}
    drivers.write_bytes(uri, json.dumps(fields).encode())
    clock = Clock()
    assert make(clock).acquire()
    assert clock.now == 1000.0


def test_pids_say_nothing_between_machines(make: Callable[..., Lease], drivers: Catalog) -> None:
    assert make().acquire()
    uri = f"{drivers.prefix_uri}/0001.json"
    for pid, process in ((os.getpid(), start_of(os.getpid())), (2**22 + 1, "7"), (0, "")):
        fields = {**json.loads(drivers.read_bytes(uri)), "machine": "another", "pid": pid, "process": process}
        drivers.write_bytes(uri, json.dumps(fields).encode())
        assert not lease_module.Lease(drivers, "x", lost=gone)._newest().has_ended
    assert this_machine() == this_machine()


def test_a_record_that_cannot_be_read_is_waited_for(make: Callable[..., Lease], drivers: Catalog) -> None:
    for data in (b"", b"{", b"[1]", b'"text"', b"\xff"):
        drivers.write_bytes(f"{drivers.prefix_uri}/0001.json", data)
        clock = Clock()
        lease = make(clock)
        assert lease.acquire()
        assert clock.now >= 1000 + LIFE_S
        drivers.delete(drivers.prefix_uri)


def test_a_moved_clock_of_the_holder_changes_nothing(make: Callable[..., Lease]) -> None:
    first_clock = Clock()
    first = make(first_clock)
    assert first.acquire()
    first_clock.now -= 1e9
    first.check()
    first.confirm()

    def renew() -> None:
        first.confirm()
        if second_clock.now > 1100:
            first.release()

    second_clock = Clock(renew)
    assert make(second_clock).acquire()


def test_a_paused_driver_that_nobody_has_replaced_goes_on(make: Callable[..., Lease]) -> None:
    clock = Clock()
    lease = make(clock)
    assert lease.acquire()
    clock.now += 10 * LIFE_S
    lease.check()
    assert lease.held


def test_a_holder_that_moves_in_the_last_moment_is_waited_for(make: Callable[..., Lease], drivers: Catalog) -> None:
    """It was paused, and goes on between the taker's last look and its file: it sees that, and ends."""
    first = make()
    assert first.acquire()
    elsewhere(drivers)
    clock = Clock()
    second = make(clock)
    create = drivers.create_bytes

    def late(uri: str, data: bytes) -> bool:
        with suppress(GoneError):
            first.confirm()
        elsewhere(drivers)
        return create(uri, data)

    second._folder.create_bytes = late  # type: ignore[method-assign]
    assert second.acquire()
    assert clock.now >= 1000 + 2 * LIFE_S
    with pytest.raises(GoneError, match="has taken over"):
        first.confirm()


def test_who_cannot_renew_ends_before_another_may_take_over(
    make: Callable[..., Lease], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    lease = make(clock)
    assert lease.acquire()

    def full(uri: str, data: bytes) -> None:
        raise CatalogError("the disk is full")

    monkeypatch.setattr(lease._folder, "rewrite_bytes", full)
    clock.now += FENCE_S - 1
    lease.confirm()
    assert "cannot be renewed: the disk is full" in caplog.text
    clock.now += 2
    assert clock.now < 1000 + LIFE_S
    with pytest.raises(GoneError, match="could not be renewed for 46 s: the disk is full"):
        lease.check()
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_store_that_cannot_be_read_is_not_judged(make: Callable[..., Lease], drivers: Catalog) -> None:
    first = make()
    assert first.acquire()
    elsewhere(drivers)
    clock = Clock()
    second = make(clock)
    read = second._newest

    def unreadable() -> Any:
        if 1010 < clock.now < 1100:
            raise CatalogError("no answer")
        return read()

    second._newest = unreadable  # type: ignore[method-assign]
    assert second.acquire()
    assert clock.now >= 1100 + LIFE_S - 1, "its life begins anew when it can be looked at again"


def test_of_many_that_begin_together_one_gets_it(tmp_path: Path) -> None:
    drivers = Catalog(str(tmp_path)).at("drivers")
    leases = [Lease(drivers, f"job-{number}", lost=gone) for number in range(16)]
    begin, got = threading.Barrier(len(leases)), []

    def run(lease: Lease) -> None:
        begin.wait()
        if lease.acquire(over=lambda: True):
            got.append(lease)

    threads = [threading.Thread(target=run, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [lease.number for lease in got] == [1]
    got[0].release()


@pytest.mark.parametrize("later", [0.5, 1.5])
def test_without_exclusive_creation_the_last_writer_wins(later: float, make: Callable[..., Lease]) -> None:
    import fsspec

    fsspec.filesystem("memory").store.clear()
    drivers = Catalog("memory://lease").at("drivers")
    assert not drivers.creates_exclusively
    clock = Clock()
    first = make(clock, folder=drivers)

    def other() -> None:
        if clock.now > 1000 + later:
            # One that has looked before the first wrote: it replaces the file.
            drivers.write_bytes(f"{drivers.prefix_uri}/0001.json", b'{"token": "other"}')

    clock.meanwhile = other
    assert not first.acquire(over=lambda: clock.now > 1003)
    assert not first.held


def test_a_name_that_another_has_written_after_all_is_seen_at_the_renewal(make: Callable[..., Lease]) -> None:
    import fsspec

    fsspec.filesystem("memory").store.clear()
    drivers = Catalog("memory://lease").at("drivers")
    lease = make(folder=drivers)
    assert lease.acquire()
    drivers.write_bytes(f"{drivers.prefix_uri}/0001.json", b'{"token": "other", "submission_id": "job-b"}')
    with pytest.raises(GoneError, match="job-b"):
        lease.confirm()


def test_tunes_state_is_written_by_the_holder_alone(make: Callable[..., Lease]) -> None:
    may_write()  # a trial's process, or one without a lease
    lease = make()
    assert lease.acquire()
    held_by_search(lease)
    may_write()
    other = make(Clock(lambda: None))
    other._take(2)
    lease._clock.now += FENCE_S + 1  # type: ignore[attr-defined]
    with pytest.raises(GoneError):
        may_write()
    with pytest.raises(LeaseLostError):
        may_write()
    held_by_search(other)
    other.release()
    may_write()


_HOLDER = """
import os, sys, time
from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.runtime.lease import Lease

def lost(reason):
    os.write(1, f"lost: {reason}\\n".encode())
    os._exit(3)

catalog = Catalog(sys.argv[1])
lease = Lease(catalog.at("drivers"), sys.argv[2], lost=lost, life_s=2.0, fence_s=1.4, renewal_s=0.3)
assert lease.acquire()
print("holds", lease.number, flush=True)
own = catalog.guarded(lease.check)
while True:
    own.write_bytes(f"{catalog.uri}/written", sys.argv[2].encode())
"""


def _holder(root: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", _HOLDER, str(root), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_process_that_was_stopped_writes_nothing_after_another_has_taken_over(tmp_path: Path) -> None:
    first, second = _holder(tmp_path, "first"), None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "holds 1\n"
        written = tmp_path / "written"
        while not written.exists():
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGSTOP)
        second = _holder(tmp_path, "second")
        assert second.stdout is not None
        assert second.stdout.readline() == "holds 2\n"
        while written.read_text() != "second":
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGCONT)
        while first.poll() is None:
            assert written.read_text() == "second"
        assert first.returncode == 3
        assert "job second" in first.stdout.read()
        assert written.read_text() == "second"
        assert second.poll() is None
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("hangs", ["", "lease._folder.rewrite_bytes = lambda uri, data: time.sleep(60)\n"])
def test_a_process_whose_catalog_is_gone_or_hangs_ends_itself(tmp_path: Path, hangs: str) -> None:
    script = _HOLDER[: _HOLDER.index("own =")] + hangs + "time.sleep(60)\n"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", script, str(tmp_path / "catalog"), "job"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds 1\n"
        (tmp_path / "catalog").rename(tmp_path / "elsewhere")
        assert process.wait(timeout=20) == 3
        assert "could not be renewed" in process.stdout.read()
    finally:
        process.kill()
        process.wait()
