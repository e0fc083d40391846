"""k-means++ and Lloyd's algorithm on one sample, for many sets of centres at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def n_trials(n_centres: int) -> int:
    """How many candidates are drawn for each centre."""
    return 2 + int(math.log(n_centres))


def spread_centres(points: Tensor, uniforms: Tensor) -> Tensor:
    """C sets of K centres among points (n, D), drawn by squared distance from those before: (C, K, D).

    Several candidates are drawn for each centre and the one that leaves the least squared distance stays.

    Args:
        points: (n, D) float64.
        uniforms: (C, K, n_trials(K)) random numbers in [0, 1), which decide everything.

    References:
        Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
    """
    n_sets, n_centres, trials = uniforms.shape
    n_samples = points.shape[0]
    every = torch.arange(n_sets)
    chosen = [(uniforms[:, 0, 0] * n_samples).long().clamp_(max=n_samples - 1)]
    closest = _squared_distances(points, points[chosen[0]])
    for k in range(1, n_centres):
        cumulative = closest.cumsum(1)
        drawn = uniforms[:, k] * cumulative[:, -1:]
        candidates = torch.searchsorted(cumulative, drawn, right=True).clamp_(max=n_samples - 1)
        distances = _squared_distances(points, points[candidates.flatten()]).view(n_sets, trials, n_samples)
        distances = torch.minimum(distances, closest.unsqueeze(1))
        best = distances.sum(2).argmin(1)
        closest = distances[every, best]
        chosen.append(candidates[every, best])
    return points[torch.stack(chosen, dim=1)]


def members(points: Tensor, centres: Tensor) -> Tensor:
    """Which centre of each set (C, K, D) is the nearest of every point (n, D): one-hot (C, K, n) float64."""
    n_sets, n_centres, _ = centres.shape
    distances = _squared_distances(points, centres.flatten(0, 1)).view(n_sets, n_centres, -1)
    return torch.zeros_like(distances).scatter_(1, distances.argmin(1, keepdim=True), 1.0)


def averages(points: Tensor, member: Tensor, otherwise: Tensor) -> tuple[Tensor, Tensor]:
    """Sizes (C, K) of clusters and their means (C, K, D), for an empty one ``otherwise`` (C, K, D)."""
    sizes = member.sum(2)
    means = (member @ points) / sizes.clamp_min(1).unsqueeze(-1)
    return sizes, torch.where(sizes.unsqueeze(-1) > 0, means, otherwise)


def lloyd(points: Tensor, centres: Tensor, n_steps: int) -> Tensor:
    """Centres (C, K, D) after so many rounds of assigning and averaging; one left alone stays put.

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    for _ in range(n_steps):
        before = centres
        _, centres = averages(points, members(points, centres), centres)
        if torch.equal(before, centres):
            break
    return centres


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """|x - c|^2, (m, n) for points (n, D) and centres (m, D), never negative."""
    squares = torch.addmm(points.square().sum(1), centres, points.T, alpha=-2)
    return squares.add_(centres.square().sum(1).unsqueeze(1)).clamp_min_(0)
