"""A map as Ray's documentation writes it: the yardstick of `bench_map.py`. Prints the seconds of its loop.

`naive`: a task per item; `batched`: a task per 1,000 items (pattern "batching small tasks"). Both keep a bounded number
in flight with `ray.wait` (pattern "limit the number of pending tasks").
"""

from __future__ import annotations

import json
import logging
import sys
import time

import ray

IN_FLIGHT = 16


def function(item: int) -> int:
    return sum(range(item % 100))


@ray.remote
def one(item: int) -> int:
    return function(item)


@ray.remote
def many(items: list[int]) -> list[int]:
    return [function(item) for item in items]


def bounded(task, arguments: list) -> list:
    """Return the results of a task for each argument, in order, with a bounded number in flight."""
    places: dict = {}
    results: list = [None] * len(arguments)
    for place, argument in enumerate(arguments):
        if len(places) >= IN_FLIGHT:
            ready, _ = ray.wait(list(places), num_returns=1)
            for reference in ready:
                results[places.pop(reference)] = ray.get(reference)
        places[task.remote(argument)] = place
    for reference, place in places.items():
        results[place] = ray.get(reference)
    return results


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    items = list(range(count))
    ray.init(address="local", include_dashboard=False, logging_level=logging.WARNING)
    start = time.perf_counter()
    if kind == "naive":
        results = bounded(one, items)
    else:
        batches = bounded(many, [items[first : first + 1000] for first in range(0, count, 1000)])
        results = [result for batch in batches for result in batch]
    seconds = time.perf_counter() - start
    assert results == [function(item) for item in items]
    print("RESULT " + json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
