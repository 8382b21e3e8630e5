"""Whether a value has reached its bound, in the words of the key `stop`."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any


def reached(value: Any, bound: float, *, falling: bool) -> bool:
    """Return whether `value` is at its bound or beyond; what is not there, is no number or is NaN reaches none.

    :param falling: whether the value comes from above.
    """
    if not isinstance(value, Real) or math.isnan(value):
        return False
    return float(value) <= bound if falling else float(value) >= bound
