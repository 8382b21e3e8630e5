"""Random and grid search: Ray's BasicVariantGenerator, with first points of any kind."""

from __future__ import annotations

import copy
from typing import Any

from ray.tune.experiment import Experiment, _convert_to_experiment_list
from ray.tune.search.basic_variant import BasicVariantGenerator

from airflow_provider_raynode.config.space_tree import SpaceTree
from airflow_provider_raynode.runtime.space import space_of


class RandomSearch(BasicVariantGenerator):
    """Draws each trial, or runs the grid; first come the given points.

    Ray reads a point by the paths of its innermost values, which is wrong where a value is itself a list or a mapping.
    So each point is an experiment of one sample here, in whose space the point's values stand as constants.

    :param points: the variables' values of each point; what one leaves out is drawn.
    """

    def __init__(self, tree: SpaceTree, points: list[dict[str, Any]], **arguments: Any) -> None:
        self._tree = tree
        self._first = points
        super().__init__(**arguments)

    def add_configurations(self, experiments: Any) -> None:
        """Take the experiment; see Ray."""
        for experiment in _convert_to_experiment_list(experiments):
            left = experiment.spec.get("num_samples", 1)
            parts = [_part(experiment, 1, space_of(self._tree, point)) for point in self._first[:left]]
            if left > len(parts):
                parts.append(_part(experiment, left - len(parts), experiment.spec["config"]))
            super().add_configurations(parts)


def _part(experiment: Experiment, samples: int, space: dict[str, Any]) -> Experiment:
    part = copy.copy(experiment)
    part.spec = {**experiment.spec, "num_samples": samples, "config": space}
    return part
