"""How far a mean over a few seeds may be from the mean over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


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
    return Interval(mean, _quantile(count - 1) * math.sqrt(variance / count))


def _quantile(freedom: int) -> float:
    """What |t| exceeds with a chance of 5 %, for so many degrees of freedom."""
    low, high = 0.0, math.pi / 2  # t is the tangent of an angle times sqrt(freedom)
    for _ in range(60):
        middle = (low + high) / 2
        if _within(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _within(angle: float, freedom: int) -> float:
    """The chance that |t| is below sqrt(freedom) tan(angle), as a finite sum."""
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for k in range(odd + 1, freedom, 2):
        total += term
        term *= math.cos(angle) ** 2 * k / (k + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
