"""Lloyd's steps for many sets of centres in one product."""

from __future__ import annotations

import numpy as np
import pytest

from service.mixture.kmeans import clusters_by_piece, lloyd
from service.mixture.pieces import Pieces

# Of two, three, eight and one set in a product.
SHAPES = [(13, 2), (4, 12), (1, 3), (3, 50)]


def problem(n_features: int, n_centres: int, n_sets: int = 19) -> tuple[np.ndarray, np.ndarray]:
    """Points (500, D) and centres (sets, K, D) among them, of which the first two are at the same place."""
    generator = np.random.default_rng(n_features)
    points = generator.standard_normal((500, n_features))
    centres = points[generator.integers(500, size=(n_sets, n_centres))]
    centres[:, 1] = centres[:, 0]
    return points, centres


@pytest.mark.parametrize(("n_features", "n_centres"), SHAPES)
def test_every_point_is_counted_at_its_nearest_centre(monkeypatch, n_features, n_centres):
    monkeypatch.setattr("service.mixture.kmeans.CHUNK_NUMBERS", 150 * n_centres)
    points, centres = problem(n_features, n_centres)
    sizes, sums = clusters_by_piece(points, centres, Pieces())
    for own_sizes, own_sums, own_centres in zip(sizes, sums, centres, strict=True):
        nearest = np.square(points[:, None] - own_centres).sum(2).argmin(1)  # of two alike the first
        member = nearest[:, None] == np.arange(n_centres)
        np.testing.assert_array_equal(own_sizes, member.sum(0))
        np.testing.assert_allclose(own_sums, member.T.astype(float) @ points, atol=1e-12)


@pytest.mark.parametrize(("n_features", "n_centres"), SHAPES)
def test_a_set_has_the_same_bits_however_many_follow_it(n_features, n_centres):
    points, centres = problem(n_features, n_centres)
    every = lloyd(points, centres, 5)
    for n_sets in (1, 2, 7, 17):
        np.testing.assert_array_equal(lloyd(points, centres[:n_sets], 5), every[:n_sets])


def test_a_centre_that_no_point_is_nearest_to_stays_where_it_is():
    points, centres = problem(2, 3)
    centres[:, 2] = 1e6
    assert (lloyd(points, centres, 4)[:, 2] == 1e6).all()
    once = lloyd(points, centres, 1)
    assert (once[:, 1] == centres[:, 1]).all()  # at the place of another, which takes all
    assert (once[:, 0] != centres[:, 0]).any(1).all()
