"""How sure a mean over structures is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Interval", "mean_with_interval"]

_REPEATS = 2000
_OUTSIDE = 2.5  # percent beyond either end


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean_with_interval(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Interval:
    """The mean of values and the percentile bootstrap of it (Efron 1979), seeded.

    Structures of one case share patient, scanner and label maker, so cases are drawn first, then structures within each
    (Davison and Hinkley 1997, section 3.8): resampling structures alone would claim too much. With one case, and where
    every case has one structure, this is the plain bootstrap.

    values    one per structure, at least one
    clusters  the case of each
    """
    groups = [np.asarray([v for v, c in zip(values, clusters, strict=True) if c == name]) for name in dict.fromkeys(clusters)]
    generator = np.random.default_rng(seed)
    means = np.empty(_REPEATS)
    for repeat in range(_REPEATS):
        drawn = [groups[index] for index in generator.integers(len(groups), size=len(groups))]
        means[repeat] = np.concatenate([group[generator.integers(len(group), size=len(group))] for group in drawn]).mean()
    low, high = np.percentile(means, (_OUTSIDE, 100 - _OUTSIDE))
    return Interval(float(np.mean(values)), float(low), float(high))
