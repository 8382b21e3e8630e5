"""The plan of a map's batches: every item runs, once where nothing dies, and who kills its worker is found."""

from __future__ import annotations

import random

import pytest

from airflow_provider_raynode.runtime.map_plan import LARGEST, TARGET_S, Batch, Plan, missing_ranges, without_overlaps


def run(plan: Plan, seconds: float, size: int = 0, workers: int = 2) -> list[Batch]:
    """Run a plan to its end, each batch as a whole, and return its batches."""
    batches = []
    while (batch := plan.next(workers)) is not None:
        batches.append(batch)
        plan.done(len(batch), seconds * len(batch), size * len(batch))
    return batches


def covered(batches: list[Batch]) -> list[int]:
    return sorted(index for batch in batches for index in range(batch.first, batch.stop))


def test_small_items_go_in_large_batches() -> None:
    batches = run(Plan([(0, 100_000)]), 1e-5)
    assert covered(batches) == list(range(100_000))
    assert len(batches) < 60
    assert len(batches[0]) == 1
    assert max(map(len, batches)) * 1e-5 <= TARGET_S * 1.01


def test_large_items_go_alone() -> None:
    assert [len(batch) for batch in run(Plan([(0, 9)]), 3.0)] == [1] * 9
    by_size = run(Plan([(0, 1000)]), 1e-6, size=LARGEST // 10)
    assert max(map(len, by_size)) <= 10


def test_towards_the_end_each_worker_has_its_share() -> None:
    last = [len(batch) for batch in run(Plan([(0, 5_000)]), 1e-4, workers=8)][-8:]
    assert max(last) < 100


def test_what_is_given_back_comes_next() -> None:
    plan = Plan([(0, 100)])
    first = plan.next(1)
    assert first == Batch(0, 1)
    plan.done(1, 0.001, 0)
    second = plan.next(1)
    assert second is not None
    assert len(second) > 3
    plan.give_back(Batch(second.first, second.stop, chunk="here"), second.first + 2)
    again = plan.next(1)
    assert again is not None
    assert (again.first, again.stop, again.chunk) == (second.first + 2, second.stop, "here")
    plan.give_back(again, again.stop)
    following = plan.next(1)
    assert following is not None
    assert following.first == second.stop


def test_what_had_no_room_comes_next() -> None:
    plan = Plan([(0, 10), (20, 30)])
    plan.next(1)
    plan.done(1, 1e-6, 0)
    batch = plan.next(1)
    assert batch is not None
    kept = plan.cut(batch, batch.first + 1)
    assert len(kept) == 1
    rest = [kept, *run(plan, 1e-6)]
    assert covered(rest) == [*range(1, 10), *range(20, 30)]


@pytest.mark.parametrize("retries", [0, 2])
def test_the_item_that_kills_its_worker_is_found(retries: int) -> None:
    guilty = {17, 900}
    plan = Plan([(0, 1000)], max_retries=retries)
    blamed, ran, alone = [], [], 0
    while (batch := plan.next(4)) is not None:
        killer = next((index for index in range(batch.first, batch.stop) if index in guilty), None)
        if killer is None:
            ran += range(batch.first, batch.stop)
            plan.done(len(batch), 1e-6 * len(batch), 0)
        else:
            alone += len(batch) == 1
            if plan.lost(batch):
                blamed.append(batch.first)
    assert sorted(blamed) == sorted(guilty)
    assert sorted(ran) == [index for index in range(1000) if index not in guilty]
    assert alone == len(guilty) * (retries + 1)


def test_missing_ranges() -> None:
    assert missing_ranges([], 5) == [(0, 5)]
    assert missing_ranges([(0, 5)], 5) == []
    assert missing_ranges([(1, 2), (2, 3), (4, 5)], 6) == [(0, 1), (3, 4), (5, 6)]
    assert missing_ranges([], 0) == []


def test_ranges_of_two_drivers() -> None:
    """What is chosen never overlaps, and with what is missing covers everything, whatever two drivers have left."""
    seeded = random.Random(7)
    for _ in range(200):
        ranges = [(first, first + seeded.randint(1, 9)) for first in (seeded.randint(0, 50) for _ in range(20))]
        chosen = without_overlaps(ranges)
        both = sorted([*chosen, *missing_ranges(chosen, 60)])
        assert [each for first, stop in both for each in range(first, stop)] == list(range(60))
