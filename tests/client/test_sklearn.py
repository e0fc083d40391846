"""scikit-learn's estimator over the service: its own checks, and the numbers of its own mixture."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.mixture import GaussianMixture as Reference
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from service.client.sklearn import GaussianMixture
from tests.serving import Server

Rows = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _at_the_service(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXSERVE_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")  # without it, scikit-learn leaves one of its checks out


@parametrize_with_checks([GaussianMixture()])
def test_scikit_learns_own_checks(estimator: GaussianMixture, check: object) -> None:
    check(estimator)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_it_is_what_scikit_learn_fits(blobs: Rows, covariance_type: str) -> None:
    fitted = GaussianMixture(2, covariance_type=covariance_type, tol=1e-12, random_state=0).fit(blobs)
    reference = Reference(
        2, covariance_type=covariance_type, tol=1e-12, n_init=4, random_state=0, max_iter=999
    )
    reference.fit(blobs)
    order = np.argsort(-reference.weights_)
    shared = covariance_type == "tied"
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        expected = getattr(reference, name)
        if not (shared and name not in ("weights_", "means_")):
            expected = expected[order]
        np.testing.assert_allclose(getattr(fitted, name), expected, rtol=2e-4, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(fitted.score_samples(blobs), reference.score_samples(blobs), atol=1e-3)
    np.testing.assert_allclose(
        fitted.predict_proba(blobs), reference.predict_proba(blobs)[:, order], atol=1e-3
    )
    for name in ("score", "bic", "aic"):
        assert getattr(fitted, name)(blobs) == pytest.approx(getattr(reference, name)(blobs), rel=1e-4)
    assert fitted.lower_bound_ == pytest.approx(fitted.score(blobs))
    assert fitted.converged_


def test_samples_are_drawn_from_it(blobs: Rows) -> None:
    fitted = GaussianMixture(2, random_state=0).fit(blobs)
    points, components = fitted.sample(500)
    assert (fitted.predict(points) == components).mean() > 0.99
    np.testing.assert_array_equal(fitted.sample(500)[0], points)
    with pytest.raises(ValueError, match="at least 1"):
        fitted.sample(0)


def test_parameters_that_are_not_valid(blobs: Rows) -> None:
    with pytest.raises(ValueError, match="covariance_type"):
        GaussianMixture(2, covariance_type="round").fit(blobs)
    with pytest.raises(ValueError, match="components"):
        GaussianMixture(201).fit(blobs)


def test_it_stands_in_a_grid_search(blobs: Rows) -> None:
    search = GridSearchCV(GaussianMixture(random_state=0, n_init=1), {"n_components": [1, 2]}, cv=2)
    search.fit(np.random.default_rng(0).permutation(blobs))
    assert search.best_params_ == {"n_components": 2}
    assert clone(search.best_estimator_).get_params()["n_components"] == 2
