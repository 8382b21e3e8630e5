"""A search algorithm on an encoded space: it proposes plain numbers, of which the trial's config is made here.

Each library has a meaning of its own for bounds, multiples, logarithms and the values of a choice, and types of its
own. So none of them sees the search space: it gets a number from 0 to 1, or an index, for everything that varies,
inside choices too, and `config/space_tree.py` makes of it what random search draws as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.util import _set_search_properties_backwards_compatible

from airflow_provider_raynode.config.meaning import MOST_VALUES
from airflow_provider_raynode.config.space_tree import Fork, SpaceTree, Variable

# With more options one dimension for each is more than a model bears.
_MOST_DIMENSIONS = 50
# Where a library has gone to its own representation and back.
_NEAR = 1e-6
_NOTHING = "nothing"


class Encoding:
    """The space as a library gets it, and its proposals as the values of a tree's variables.

    :param integers: whether the library knows integers, each as likely.
    :param choices: whether it knows choices; else a choice is one dimension per option, of which the largest counts.
    :param every_value: the library runs every value: each stands by its index, however likely it is.
    :param always_new: the library ends the search when a proposal repeats: it gets a number more, without meaning.
    """

    def __init__(
        self,
        tree: SpaceTree,
        *,
        integers: bool = True,
        choices: bool = True,
        every_value: bool = False,
        always_new: bool = False,
    ) -> None:
        self._variables = list(tree.variables)
        self._integers = integers
        self._choices = choices
        self._every_value = every_value
        self._idle = always_new or not self._variables

    def space(self) -> dict[str, Any]:
        """Return the space in Ray's domains."""
        space: dict[str, Any] = {}
        for variable in self._variables:
            count = self._indexes(variable)
            if count is None:
                space |= {name: tune.uniform(0.0, 1.0) for name in self._names(variable)}
            elif isinstance(variable, Fork):
                space[variable.name] = tune.choice(list(range(count)))
            else:
                space[variable.name] = tune.randint(0, count)
        if self._idle:
            space[_NOTHING] = tune.uniform(0.0, 1.0)
        return space

    def values(self, proposal: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a proposal says: each variable's value, a fork's index."""
        return {variable.name: self._value(variable, proposal) for variable in self._variables}

    def proposal(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the proposal that says `values`; what they leave out is in the middle."""
        proposal: dict[str, Any] = {}
        for variable in self._variables:
            proposal |= self._encoded(variable, values.get(variable.name))
        if self._idle:
            proposal[_NOTHING] = 0.5
        return proposal

    def _indexes(self, variable: Variable) -> int | None:
        """Return how many indexes stand for a variable, None where numbers do."""
        if isinstance(variable, Fork):
            return len(variable.options) if self._choices else None
        by_index = self._every_value or (self._integers and variable.meaning.even)
        size = variable.meaning.size if by_index else None
        return size if size is not None and size <= MOST_VALUES else None

    def _names(self, variable: Variable) -> list[str]:
        if isinstance(variable, Fork) and 2 < len(variable.options) <= _MOST_DIMENSIONS:
            return [f"{variable.name}_{index}" for index in range(len(variable.options))]
        return [variable.name]

    def _value(self, variable: Variable, proposal: Mapping[str, Any]) -> Any:
        numbers = [_number(proposal[name]) for name in self._names_of(variable)]
        by_index = self._indexes(variable) is not None
        if isinstance(variable, Fork):
            count = len(variable.options)
            if len(numbers) > 1:
                return numbers.index(max(numbers))
            return min(max(round(numbers[0]) if by_index else math.floor(numbers[0] * count), 0), count - 1)
        if by_index:
            return variable.meaning.nth(round(numbers[0]))
        return variable.meaning.at(min(max(numbers[0], 0.0), 1.0))

    def _names_of(self, variable: Variable) -> list[str]:
        return [variable.name] if self._indexes(variable) is not None else self._names(variable)

    def _encoded(self, variable: Variable, value: Any) -> dict[str, Any]:
        count = self._indexes(variable)
        if isinstance(variable, Fork):
            index = 0 if value is None else value
            if count is not None:
                return {variable.name: index}
            names = self._names(variable)
            if len(names) == 1:
                return {variable.name: (index + 0.5) / len(variable.options)}
            return {name: float(number == index) for number, name in enumerate(names)}
        if count is not None:
            return {variable.name: count // 2 if value is None else variable.meaning.index(value)}
        return {variable.name: 0.5 if value is None else variable.meaning.position(value)}


class EncodedSearcher(Searcher):
    """Ray's search algorithm `searcher`, on an encoded space.

    A wrapper as Ray's own are: Ray saves and restores what it wraps by the attribute `searcher`.

    :param points: the first points that `searcher` was given, as the values of the tree's variables: they are proposed
        to the last digit, which the way through the library's own numbers does not keep.
    :param known: configs with their metrics, which `searcher` is told before it proposes anything.
    """

    def __init__(
        self,
        searcher: Searcher,
        tree: SpaceTree,
        encoding: Encoding,
        points: list[dict[str, Any]] | None = None,
        known: Sequence[tuple[dict[str, Any], float]] = (),
    ) -> None:
        self.searcher = searcher
        self._tree = tree
        self._encoding = encoding
        self._points = list(points or ())
        self._known = known
        super().__init__(metric=searcher.metric, mode=searcher.mode)

    @property
    def metric(self) -> Any:
        """The metric of the wrapped algorithm."""
        return self.searcher.metric

    @property
    def mode(self) -> Any:
        """The mode of the wrapped algorithm."""
        return self.searcher.mode

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Hand on metric, mode and, in place of the search space, the encoded one."""
        taken = bool(
            _set_search_properties_backwards_compatible(
                self.searcher.set_search_properties, metric, mode, self._encoding.space(), **spec
            )
        )
        for parameters, value in self._known if taken else ():
            self.add_evaluated_point(parameters, value)
        self._known = ()
        return taken

    def suggest(self, trial_id: str) -> Any:
        """Return the next config, or what the wrapped algorithm says in place of one: None, or that it is finished."""
        proposal = self.searcher.suggest(trial_id)
        if not isinstance(proposal, Mapping):
            return proposal
        values = self._point_of(trial_id, proposal) or self._encoding.values(proposal)
        return self._tree.config(lambda variable: values[variable.name])

    def _point_of(self, trial_id: str, proposal: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the first point that a proposal is, as it was given."""
        for index, values in enumerate(self._points):
            encoded = self._encoding.proposal(values)
            if all(abs(_number(proposal[name]) - each) <= _NEAR for name, each in encoded.items()):
                return {**self._encoding.values(proposal), **self._points.pop(index)}
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Hand on a report."""
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Hand on a trial's end."""
        self.searcher.on_trial_complete(trial_id, result=result, error=error)

    def on_pause(self, trial_id: str) -> None:
        """Hand on that HyperBandForBOHB has paused a trial."""
        cast(Any, self.searcher).on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Hand on that HyperBandForBOHB lets a trial go on."""
        cast(Any, self.searcher).on_unpause(trial_id)

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Hand on a known result, with the config encoded."""
        values = self._tree.point(parameters).values
        self.searcher.add_evaluated_point(self._encoding.proposal(values), value, error, pruned, intermediate_values)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Hand on the limit, and return whether the wrapped algorithm keeps to it itself."""
        return bool(self.searcher.set_max_concurrency(max_concurrent))

    def save(self, checkpoint_path: str) -> None:
        """Save the wrapped algorithm."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """Restore the wrapped algorithm."""
        self.searcher.restore(checkpoint_path)

    def get_state(self) -> dict[str, Any]:
        """Return what Ray saves of this wrapper beside what it wraps."""
        return {"points": list(self._points)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what Ray has saved."""
        self._points = list(state["points"])


class EncodedZOOpt(EncodedSearcher):
    """ZOOpt on an encoded space.

    It forgets the first points that it is given as soon as one trial has ended. So it gets none: each is put in the
    place of a proposal of its own, and it learns from it.
    """

    def _point_of(self, trial_id: str, proposal: Mapping[str, Any]) -> dict[str, Any] | None:
        if not self._points:
            return None
        values = self._points.pop(0)
        encoded = self._encoding.proposal(values)
        zoopt = cast(Any, self.searcher)
        zoopt.solution_dict[trial_id].set_x([encoded[name] for name in zoopt._dim_keys])
        return {**self._encoding.values(encoded), **values}


def _number(value: Any) -> float:
    """Return a library's number, of whatever type, as a float; what is none counts as the middle of the range."""
    number = float(value)
    return number if math.isfinite(number) else 0.5
