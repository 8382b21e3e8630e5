"""Who goes first where several wait for a slot: the controller promises no order, so a seed picks one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

# Long enough for all that became ready at the same time to have come.
_GATHER_S = 0.005


class Turns:
    """Slots by name, of which a holder takes one of each that it names, all together.

    :param chance: picks who goes next; None: who came first.
    :ivar most: the greatest number of holders at once, by name.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance
        self._held: dict[str, int] = {}
        self._waiting: list[tuple[asyncio.Future[None], Mapping[str, int]]] = []
        self.most: dict[str, int] = {}

    @asynccontextmanager
    async def hold(self, limits: Mapping[str, int]) -> AsyncIterator[None]:
        """Hold a slot of each name.

        :param limits: how many slots there are, by name.
        """
        loop = asyncio.get_running_loop()
        granted = loop.create_future()
        self._waiting.append((granted, limits))
        self._soon() if self._chance else self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._release(limits)
            raise
        try:
            yield
        finally:
            self._release(limits)

    def _soon(self) -> None:
        asyncio.get_running_loop().call_later(_GATHER_S, self._grant)

    def _grant(self) -> None:
        waiting = [each for each in self._waiting if not each[0].done()]
        if self._chance:
            self._chance.shuffle(waiting)
        for granted, limits in waiting:
            if all(self._held.get(name, 0) < limit for name, limit in limits.items()):
                for name in limits:
                    self._held[name] = self._held.get(name, 0) + 1
                    self.most[name] = max(self.most.get(name, 0), self._held[name])
                granted.set_result(None)
        self._waiting = [each for each in self._waiting if not each[0].done()]

    def _release(self, limits: Mapping[str, int]) -> None:
        for name in limits:
            self._held[name] -= 1
        self._soon() if self._chance else self._grant()
