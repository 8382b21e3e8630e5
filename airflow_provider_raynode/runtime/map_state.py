"""What an attempt of a map leaves to the next: whose map it is, and the parts of the results. Imports no Ray.

`map.json` says whose it is and of which work. What has been done the names of the parts say, so that nothing has to be
written after each of them.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any

from airflow_provider_raynode.catalog import Catalog
from airflow_provider_raynode.exceptions import CatalogError, SearchStateError
from airflow_provider_raynode.runtime.map_parts import Part, whole_parts
from airflow_provider_raynode.runtime.map_plan import without_overlaps
from airflow_provider_raynode.spec import NodeSpec
from airflow_provider_raynode.work import work_of

log = logging.getLogger(__name__)

_REMEDY = "Set on_change='restart' on the node and clear it, fan-out too, to start anew, or trigger a new DAG run"


class MapState:
    """The folder of a map, which attempts that go on with one another share.

    :param attempt: the catalog at the attempt's folder; a write fails once the lease is lost.
    """

    def __init__(self, spec: NodeSpec, attempt: Catalog) -> None:
        self._spec = spec
        self._uri = spec.state_uri
        self._folder = attempt.at(f"{spec.experiment_prefix}/{spec.experiment_name}")
        self.parts = self._folder.child("parts")

    def begin(self, items: int) -> list[Part]:
        """Return the parts that are there, in order, and write whose map this is.

        :param items: how many the map has.
        :raises SearchStateError: what lies there is another map's, or of other work, and `spec.on_change` does not say
            that it then starts anew.
        """
        found: list[Part] = []
        if self._folder.exists(self._uri):
            try:
                self._check(items)
            except SearchStateError as error:
                if self._spec.on_change != "restart":
                    raise
                log.warning("%s: on_change is 'restart', so the map starts anew", str(error).removesuffix(_REMEDY))
                self.remove()
            else:
                found = self._parts(items)
        elif self._spec.search_of is not None:
            log.info("Attempt %d left no state of its map: it starts anew", self._spec.search_of)
        own = {"map": self._spec.search_id, "work": work_of(self._spec), "items": items}
        self._folder.write_bytes(self._uri, json.dumps(own, sort_keys=True).encode())
        return found

    def remove(self) -> None:
        """Remove all of it: nobody goes on with the map."""
        self._folder.delete(self._uri)
        self._folder.delete(self._folder.prefix_uri)

    def remove_all(self) -> None:
        """Remove it, and what earlier attempts of the node have left, once the result is there."""
        with suppress(CatalogError):
            self.remove()
            if not self._folder.list(self._spec.experiment_prefix):
                self._folder.delete(self._spec.experiment_prefix)

    def found(self, first: int, stop: int) -> list[Part]:
        """Return the parts within a range that a worker which died had written."""
        try:
            parts, _ = whole_parts(self.parts, first, stop)
        except CatalogError:
            return []
        return _chosen(parts)

    def _check(self, items: int) -> None:
        try:
            state: dict[str, Any] = json.loads(self._folder.read_bytes(self._uri))
            whose, work, count = state["map"], dict(state["work"]), state["items"]
        except (ValueError, KeyError, TypeError) as error:
            raise SearchStateError(f"{self._uri} is damaged ({type(error).__name__}: {error}). {_REMEDY}") from error
        if whose != self._spec.search_id:
            raise SearchStateError(f"{self._uri} is another map's ({whose:.16}…). {_REMEDY}")
        changed = [name for name, digest in work_of(self._spec).items() if work.get(name, digest) != digest]
        if changed or count != items:
            what = ", ".join(changed) or f"the number of items ({count}, now {items})"
            raise SearchStateError(f"{self._uri} is of other work: {what} changed since it was written. {_REMEDY}")

    def _parts(self, items: int) -> list[Part]:
        parts, damaged = whole_parts(self.parts, 0, items)
        for name in damaged:
            log.warning("The results in %s are damaged: their items are run again", name)
            self.parts.delete(f"{self.parts.prefix_uri}/{name}")
        return _chosen(parts)


def _chosen(parts: list[Part]) -> list[Part]:
    by_range = {part.range: part for part in parts}
    return [by_range[each] for each in without_overlaps(by_range)]
