"""k-means++ and Lloyd's algorithm on one sample, for many sets of centres at once; numpy, float64.

Products of matrices are torch's: numpy's library has threads of its own, which wait in a loop beside them.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from service.mixture.arrays import Array
from service.mixture.journal import Entry
from service.mixture.pieces import Pieces
from service.mixture.threads import threads_for

# Distances that are looked at together.
CHUNK_NUMBERS = 1 << 18
# Sets of centres in one piece of work, and in one product: with few rows a product is slow.
SETS_TOGETHER, SETS_IN_PRODUCT, ROWS_IN_PRODUCT = 16, 8, 40
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
    distances = product(rows.T, lifted)
    np.maximum(distances, 0.0, out=distances)
    return distances


def _with_one(points: Array) -> torch.Tensor:
    """Points (n, D) with a one behind each, (n, D + 1): their products have squares, their sums sizes."""
    return torch.from_numpy(np.hstack([points, np.ones((points.shape[0], 1))]))


def _clusters(with_one: torch.Tensor, centres: Array) -> tuple[Array, Array]:
    """Sizes (C, K) and sums (C, K, D) of points (n, D + 1), each at the nearest centre of each set."""
    n_sets, n_centres, n_features = centres.shape
    rows = _groups(_of_distances(centres))
    sums = torch.zeros_like(rows)
    # It does not depend on how many sets there are: a set's numbers are its own.
    chunk = max(64, CHUNK_NUMBERS // rows.shape[1])
    with threads_for(rows.numel() * with_one.shape[0]):
        for group, found in zip(rows, sums, strict=True):
            for part in torch.split(with_one, chunk):
                found.addmm_(_nearest(group @ part.T, n_centres), part)
    of_sets = sums.view(-1, n_centres, n_features + 1)[:n_sets].numpy()
    return of_sets[..., -1], of_sets[..., :-1]


def _of_distances(centres: Array) -> Array:
    """What of squared distances differs between centres (C, K, D): rows (C, K, D + 1) for ``_with_one``."""
    squares = np.square(centres).sum(2, keepdims=True)
    squares += TIE * squares.max(1, keepdims=True) * np.arange(centres.shape[1])[:, None]
    return np.concatenate([-2 * centres, squares], axis=2)


def _groups(rows: Array) -> torch.Tensor:
    """Rows (C, K, E) of G sets one below the other, (groups, G * K, E).

    The last group is filled up with zeros: a product's last digits depend on its shape, and a set's must not
    depend on how many others there are.
    """
    n_sets, n_centres, width = rows.shape
    together = min(SETS_IN_PRODUCT, max(1, ROWS_IN_PRODUCT // n_centres))
    n_groups = -(-n_sets // together)
    filled = np.zeros((n_groups * together, n_centres, width))
    filled[:n_sets] = rows
    return torch.from_numpy(filled).view(n_groups, together * n_centres, width)


def _nearest(distances: torch.Tensor, n_centres: int) -> torch.Tensor:
    """Overwrites distances (sets * K, n) with one where a centre is its set's nearest, zero elsewhere."""
    of_sets = distances.numpy().reshape(-1, n_centres, distances.shape[1])
    np.equal(of_sets, np.minimum.reduce(of_sets, axis=1)[:, None], out=of_sets)
    return distances


def product(left: Array, right: Array) -> Array:
    """Of two matrices, (m, k) and (k, n): (m, n)."""
    with threads_for(left.size * right.shape[1]):
        return torch.mm(torch.from_numpy(left), torch.from_numpy(right)).numpy()


def lloyd(points: Array, centres: Array, n_steps: int, pieces: Pieces | None = None) -> Array:
    """Centres (C, K, D) after so many rounds of assigning and averaging; one left alone stays put.

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    pieces, with_one = pieces or Pieces(), _with_one(points)

    def refined(first: int, some: Array) -> Array:
        found: Array = pieces.result(f"lloyd {first}", lambda: {"centres": some}, step, n_steps)["centres"]
        return found

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        before = state["centres"]
        sizes, sums = _clusters(with_one, before)
        after = np.where(sizes[..., None] > 0, sums / np.maximum(sizes, 1)[..., None], before)
        return {"centres": after}, np.array_equal(before, after)

    blocks = _blocks(points, centres)
    return np.concatenate([refined(block.start, centres[block]) for block in blocks])


def clusters_by_piece(points: Array, centres: Array, pieces: Pieces) -> tuple[Array, Array]:
    """Sizes (C, K) and sums (C, K, D) of the points (n, D) nearest to each centre of each set (C, K, D)."""
    blocks, with_one = _blocks(points, centres), _with_one(points)

    def begin() -> Entry:
        return {"sizes": np.zeros(centres.shape[:2]), "sums": np.zeros_like(centres)}

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        block = blocks[n_before]
        state["sizes"][block], state["sums"][block] = _clusters(with_one, centres[block])
        return state, False

    found = pieces.result("clusters", begin, step, len(blocks))
    return found["sizes"], found["sums"]


def _blocks(points: Array, centres: Array) -> list[slice]:
    """Sets of centres that are looked at in one piece."""
    n_sets, n_centres, n_features = centres.shape
    together = PIECE_WORK // (points.shape[0] * n_centres * n_features)
    together = min(SETS_TOGETHER, max(1, together))
    return [slice(first, first + together) for first in range(0, n_sets, together)]
