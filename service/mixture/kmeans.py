"""k-means++ and Lloyd's algorithm on one sample, for many sets of centres at once; numpy, float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from service.mixture.journal import Entry
from service.mixture.pieces import Pieces

Array = np.ndarray[Any, Any]

# Distances that are looked at together, of so many sets at once.
CHUNK_NUMBERS, SETS_TOGETHER = 1 << 20, 16
# Multiplications in one step of a piece of work, about a second's; a single set of centres may need more.
PIECE_WORK = 1 << 33
# Of two centres at the same place the first takes all: the others seem this much farther, in squared spreads.
TIE = 1e-12


def n_trials(n_centres: int) -> int:
    """How many candidates are drawn for each centre."""
    return 2 + int(math.log(n_centres))


def spread_centres(points: Array, uniforms: Array, pieces: Pieces | None = None) -> Array:
    """C sets of K centres among points (n, D), drawn by squared distance from those before: (C, K, D).

    Several candidates are drawn for each centre and the one that leaves the least squared distance stays.

    Args:
        points: (n, D).
        uniforms: (C, K, n_trials(K)) random numbers in [0, 1), which decide everything.
        pieces: where the centres found so far are kept.

    References:
        Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", 2007.
    """
    pieces = pieces or Pieces()
    n_sets, n_centres, _ = uniforms.shape
    together = max(1, CHUNK_NUMBERS // (n_trials(n_centres) * points.shape[0]))
    squares = np.square(points).sum(1)
    lifted = np.vstack([points.T, squares, np.ones_like(squares)])
    chosen = [
        _spread(lifted, uniforms[start : start + together], pieces, f"spread {start}")
        for start in range(0, n_sets, together)
    ]
    centres: Array = points[np.concatenate(chosen)]
    return centres


def _spread(lifted: Array, uniforms: Array, pieces: Pieces, name: str) -> Array:
    """The places (C, K) of the chosen points among those of lifted (D + 2, n): x, |x|^2, 1."""
    n_sets, n_centres, trials = uniforms.shape
    n_samples = lifted.shape[1]
    every = np.arange(n_sets)

    def begin() -> Entry:
        places = np.empty((n_sets, n_centres), dtype=np.int64)
        places[:, 0] = (uniforms[:, 0, 0] * n_samples).astype(np.int64)
        return {"places": places, "closest": _squared_distances(lifted, places[:, 0])}

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        k, places, closest = n_before + 1, state["places"], state["closest"]
        cumulative = closest.cumsum(1)
        drawn = uniforms[:, k] * cumulative[:, -1:]
        found = torch.searchsorted(torch.from_numpy(cumulative), torch.from_numpy(drawn), right=True)
        candidates = np.minimum(found.numpy(), n_samples - 1)
        distances = _squared_distances(lifted, candidates.reshape(-1)).reshape(n_sets, trials, n_samples)
        np.minimum(distances, closest[:, None], out=distances)
        best = distances.sum(2).argmin(1)
        places[:, k] = candidates[every, best]
        return {"places": places, "closest": distances[every, best]}, k == n_centres - 1

    found: Array = pieces.result(name, begin, step, n_centres - 1)["places"]
    return found


def _squared_distances(lifted: Array, places: Array) -> Array:
    """|x - c|^2, (m, n), of all points from those at m places, never negative."""
    centres = lifted[:, places]
    rows = np.vstack([-2 * centres[:-2], np.ones_like(centres[:1]), centres[-2:-1]])
    distances: Array = rows.T @ lifted
    np.maximum(distances, 0.0, out=distances)
    return distances


def clusters(points: Array, centres: Array) -> tuple[Array, Array]:
    """Sizes (C, K) and sums (C, K, D) of the points (n, D) nearest to each centre of each set (C, K, D)."""
    n_sets, n_centres, n_features = centres.shape
    with_one = np.hstack([points, np.ones((points.shape[0], 1))])
    squares = np.square(centres).sum(2, keepdims=True)
    squares += TIE * squares.max(1, keepdims=True) * np.arange(n_centres)[:, None]
    rows = np.concatenate([-2 * centres, squares], axis=2)
    sums = np.zeros((n_sets, n_centres, n_features + 1))
    # Neither size depends on how many sets there are: a set's numbers are its own.
    chunk = max(64, CHUNK_NUMBERS // (SETS_TOGETHER * n_centres))
    for first in range(0, n_sets, SETS_TOGETHER):
        block = slice(first, first + SETS_TOGETHER)
        for start in range(0, points.shape[0], chunk):
            part = with_one[start : start + chunk]
            member = rows[block] @ part.T
            np.equal(member, np.minimum.reduce(member, axis=1)[:, None], out=member)
            sums[block] += member @ part
    return sums[..., -1], sums[..., :-1]


def lloyd(points: Array, centres: Array, n_steps: int, pieces: Pieces | None = None) -> Array:
    """Centres (C, K, D) after so many rounds of assigning and averaging; one left alone stays put.

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    pieces = pieces or Pieces()

    def refined(first: int, some: Array) -> Array:
        found: Array = pieces.result(f"lloyd {first}", lambda: {"centres": some}, step, n_steps)["centres"]
        return found

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        before = state["centres"]
        sizes, sums = clusters(points, before)
        after = np.where(sizes[..., None] > 0, sums / np.maximum(sizes, 1)[..., None], before)
        return {"centres": after}, np.array_equal(before, after)

    blocks = _blocks(points, centres)
    return np.concatenate([refined(block.start, centres[block]) for block in blocks])


def clusters_by_piece(points: Array, centres: Array, pieces: Pieces) -> tuple[Array, Array]:
    """What ``clusters`` says, some sets at a time where all at once would take long."""
    blocks = _blocks(points, centres)

    def begin() -> Entry:
        return {"sizes": np.zeros(centres.shape[:2]), "sums": np.zeros_like(centres)}

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        block = blocks[n_before]
        state["sizes"][block], state["sums"][block] = clusters(points, centres[block])
        return state, False

    found = pieces.result("clusters", begin, step, len(blocks))
    return found["sizes"], found["sums"]


def _blocks(points: Array, centres: Array) -> list[slice]:
    """Sets of centres that are looked at in one piece."""
    n_sets, n_centres, n_features = centres.shape
    together = PIECE_WORK // (points.shape[0] * n_centres * n_features)
    together = min(SETS_TOGETHER, max(1, together))
    return [slice(first, first + together) for first in range(0, n_sets, together)]
