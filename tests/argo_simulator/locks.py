"""Semaphores and mutexes of `synchronization`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from argo_simulator.errors import TemplateError, Unsupported
from argo_simulator.turns import Turns


class Locks:
    """The locks of one run.

    :ivar most: the greatest number of holders at once, by lock.
    """

    def __init__(self, config_maps: Mapping[str, Mapping[str, str]], chance: random.Random | None = None) -> None:
        self._config_maps = config_maps
        self._turns = Turns(chance)
        self.most = self._turns.most

    @asynccontextmanager
    async def hold(self, synchronization: dict[str, Any] | None) -> AsyncIterator[None]:
        """Hold all the locks of a template, taken together.

        :raises TemplateError: a semaphore's ConfigMap or key is missing: the node ends in Error.
        """
        limits = self._limits(synchronization or {})
        if not limits:
            yield
            return
        async with self._turns.hold(limits):
            yield

    def _limits(self, synchronization: dict[str, Any]) -> dict[str, int]:
        semaphores = list(synchronization.get("semaphores") or [])
        semaphores += [synchronization["semaphore"]] if synchronization.get("semaphore") else []
        mutexes = list(synchronization.get("mutexes") or [])
        mutexes += [synchronization["mutex"]] if synchronization.get("mutex") else []
        limits = {f"mutex/{each['name']}": 1 for each in mutexes}
        for each in semaphores:
            reference = each.get("configMapKeyRef")
            if reference is None:
                raise Unsupported(f"a semaphore of {sorted(each)}")
            name, key = reference["name"], reference["key"]
            value = self._config_maps.get(name, {}).get(key)
            if value is None:
                raise TemplateError(f"Failed to acquire the lock: no key {key!r} in the ConfigMap {name!r}")
            limits[f"{name}/{key}"] = int(value)
        return limits
