"""k-means++ and Lloyd's algorithm on a sample that fits in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spread_centres(points: Tensor, n_centres: int, generator: torch.Generator) -> Tensor:
    """Centres (n_centres, D) among points (n, D), each drawn by its squared distance from those before.

    Several candidates are drawn for each centre and the one that leaves the least squared distance stays.

    References:
        Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
    """
    n_trials = 2 + int(math.log(n_centres))
    first = int(torch.randint(points.shape[0], (1,), generator=generator))
    chosen = [first]
    closest = (points - points[first]).square_().sum(1)
    while len(chosen) < n_centres:
        cumulative = closest.cumsum(0)
        uniform = torch.rand(n_trials, dtype=torch.float64, generator=generator) * cumulative[-1]
        candidates = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=points.shape[0] - 1)
        distances = torch.minimum(closest, _squared_distances(points, points[candidates]))
        best = int(distances.sum(1).argmin())
        chosen.append(int(candidates[best]))
        closest = distances[best]
    return points[torch.tensor(chosen)]


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """The index of the nearest centre of every point: (n,) int64."""
    return _squared_distances(points, centres).argmin(0)


def lloyd(points: Tensor, centres: Tensor, n_steps: int) -> Tensor:
    """Labels (n,) after at most so many rounds of assigning and averaging; a centre left alone stays put.

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    labels = nearest(points, centres)
    for _ in range(n_steps):
        member = torch.nn.functional.one_hot(labels, centres.shape[0]).to(points.dtype)
        sizes = member.sum(0)
        centres = torch.where(sizes[:, None] > 0, member.T @ points / sizes.clamp_min(1)[:, None], centres)
        before, labels = labels, nearest(points, centres)
        if bool((before == labels).all()):
            break
    return labels


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """|x - c|^2 less |x|^2's rounding: (n_centres, n), never negative."""
    cross = centres @ points.T
    squares = points.square().sum(1) - 2 * cross + centres.square().sum(1)[:, None]
    return squares.clamp_min_(0)
