"""How far a mean over a few seeds may be from the mean over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import stdtrit


class Interval(NamedTuple):
    """A mean with its 95 % interval by Student's t.

    Attributes:
        mean: of the values.
        half: half of the interval's width; NaN where there is one value only.
    """

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}{self._told}"

    @property
    def signed(self) -> str:
        """As text, of a difference."""
        return f"{self.mean:+.3f}{self._told}"

    @property
    def _told(self) -> str:
        return "" if math.isnan(self.half) else f" ± {self.half:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent values, and how sure it is.

    Args:
        values: at least one, such as the scores of several training seeds, or the
            differences of two methods, seed by seed.
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Interval(mean, math.nan)
    variance = math.fsum((x - mean) ** 2 for x in values) / (count - 1)
    quantile = float(stdtrit(count - 1, 0.975))
    return Interval(mean, quantile * math.sqrt(variance / count))
