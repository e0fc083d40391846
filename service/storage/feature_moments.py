"""Running statistics of points as they are stored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CACHED_NUMBERS = 1 << 16
# Between these, squares and their sums stay far within the range of doubles.
_SMALLEST_REACH, _LARGEST_REACH = 1e-140, 1e140


@dataclass
class FeatureMoments:
    """Running statistics per feature, each (D,), merged chunk by chunk.

    The spread is kept as a root, since squares leave the range of doubles long before the numbers do.

    References:
        Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance.
    """

    n_samples: int
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @classmethod
    def of(cls, columns: NDArray[np.float64]) -> "FeatureMoments":
        """Returns the moments of columns (D, n), n at least 1, whose rows are contiguous for speed."""
        n_samples = columns.shape[1]
        # Some features at a time, as many as stay in a core's cache.
        at_once = max(1, _CACHED_NUMBERS // n_samples)
        parts = [_moments(columns[start : start + at_once]) for start in range(0, len(columns), at_once)]
        return cls(n_samples, *(np.concatenate(some) for some in zip(*parts, strict=True)))

    def merged(self, other: "FeatureMoments") -> "FeatureMoments":
        """Returns the moments of both sets of points together."""
        total = self.n_samples + other.n_samples
        ours, theirs = self.n_samples / total, other.n_samples / total
        minimum, maximum = np.minimum(self.minimum, other.minimum), np.maximum(self.maximum, other.maximum)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = other.mean - self.mean
            mean = np.where(
                np.isfinite(delta), self.mean + delta * theirs, self.mean * ours + other.mean * theirs
            )
            within = np.hypot(self.deviation * np.sqrt(ours), other.deviation * np.sqrt(theirs))
            deviation = np.hypot(within, delta * np.sqrt(ours * theirs))
        return FeatureMoments(total, np.clip(mean, minimum, maximum), deviation, minimum, maximum)

    def summary(self) -> dict[str, list[float]]:
        """Returns lists of length D by name; the standard deviation divides by N."""
        return {
            "mean": self.mean.tolist(),
            "standard_deviation": self.deviation.tolist(),
            "minimum": self.minimum.tolist(),
            "maximum": self.maximum.tolist(),
        }


def _moments(columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Returns mean, deviation, minimum and maximum, (D,) each, of columns (D, n)."""
    n_samples = columns.shape[1]
    minimum, maximum = columns.min(axis=1), columns.max(axis=1)
    # A spread beyond the largest double comes out as infinity, which JSON spells.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = columns.mean(axis=1)
        if not np.isfinite(mean).all():  # the sum overflows before the mean does
            mean = (columns / n_samples).sum(axis=1)
        mean = np.clip(mean, minimum, maximum)
        reach = np.maximum(maximum - mean, mean - minimum)
        centred = columns - mean[:, None]
        extreme = (reach > _LARGEST_REACH) | ((reach < _SMALLEST_REACH) & (reach > 0))
        unit = np.where(extreme, reach, 1.0)
        if extreme.any():
            centred /= unit[:, None]
        deviation = unit * np.sqrt(np.square(centred, out=centred).mean(axis=1))
    return mean, np.where(np.isinf(reach), np.inf, deviation), minimum, maximum
