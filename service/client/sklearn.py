"""scikit-learn's Gaussian mixture, fitted and asked by the service. Needs the extra `sklearn`."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from service.client.clients import Client
from service.client.points import Floats, Integers
from service.schemas.fit import FitResult

_MOST_SEED = np.iinfo(np.int32).max


class GaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """A Gaussian mixture with scikit-learn's interface, fitted, kept and asked by a service.

    Args:
        n_components: K; a list lets the service choose by BIC.
        covariance_type: full, tied, diag, spherical, one of mclust's fourteen, or a list to choose from.
        tol: On the mean log-likelihood per point, in nats.
        regularization: Added to the diagonals of covariances, in units of the features' variances. (It is not
            scikit-learn's `reg_covar`, which is in squared data units.)
        max_iter: Updates of the parameters at most.
        n_init: Restarts, the best of which is kept.
        optimizer: auto, em, lbfgs, adam or sgd, or a dictionary with its fields.
        random_state: An integer makes fits and samples come out the same again.
        url: Of the service; `MIXSERVE_URL` if absent, else this machine's port 8000.
        api_key: `MIXSERVE_API_KEY` if absent.
        timeout_seconds: How long `fit` waits; None for as long as it takes.

    Attributes:
        weights_: (K,), falling.
        means_: (K, D), in data units.
        covariances_: In scikit-learn's shape for the covariance type.
        precisions_: Their inverses, in the same shape.
        precisions_cholesky_: Upper triangular U with precision = U U^T; for diag and spherical, square roots.
        converged_: Whether a step gained less than `tol`.
        n_iter_: Steps that the best restart took.
        lower_bound_: The mean log-likelihood per point, in nats.
        n_features_in_: D.
        feature_names_in_: Of the points fitted, if they had names.
        fit_id_, mixture_id_: What the service keeps.
        result_: Everything that the service says about the fit.
    """

    def __init__(
        self,
        n_components: int | list[int] = 1,
        *,
        covariance_type: str | list[str] = "full",
        tol: float = 1e-6,
        regularization: float = 1e-6,
        max_iter: int = 1000,
        n_init: int = 8,
        optimizer: str | dict[str, Any] = "auto",
        random_state: Any = None,
        url: str | None = None,
        api_key: str | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.regularization = regularization
        self.max_iter = max_iter
        self.n_init = n_init
        self.optimizer = optimizer
        self.random_state = random_state
        self.url = url
        self.api_key = api_key
        self.timeout_seconds = timeout_seconds

    def fit(self, X: ArrayLike, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Fits the mixture to points X (N, D) and returns the estimator; y is not looked at.

        Raises:
            ValueError: The points or the parameters are not valid.
            FitUnsuccessful: The fit failed.
        """
        del y
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        names = getattr(self, "feature_names_in_", None)
        request: dict[str, Any] = {
            "covariance_type": self.covariance_type,
            "tolerance": self.tol,
            "regularization": self.regularization,
            "max_steps": self.max_iter,
            "n_init": self.n_init,
            "optimizer": {"name": self.optimizer} if isinstance(self.optimizer, str) else self.optimizer,
            "seed": self._seed(),
        }
        with self._client() as client:
            columns = None if names is None else list(names)
            dataset = client.upload(rows, columns=columns)
            fit = client.fit(dataset_id=dataset.id, n_components=self.n_components, **request)
            self._keep(fit.id, fit.wait(self.timeout_seconds))
        return self

    def fit_predict(self, X: ArrayLike, y: Any = None) -> Integers:  # noqa: N803
        """Fits the mixture to points X (N, D) and returns their components (N,)."""
        return self.fit(X, y).predict(X)

    def score_samples(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns the log-density (N,) of points X (N, D), in nats."""
        rows = self._asked(X)
        with self._client() as client:
            return client.mixture(self.mixture_id_).log_density(rows)

    def score(self, X: ArrayLike, y: Any = None) -> float:  # noqa: N803
        """Returns the mean log-density of points X (N, D), in nats."""
        del y
        return float(self.score_samples(X).mean())

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Returns the posterior probability (N, K) of each component for points X (N, D)."""
        rows = self._asked(X)
        with self._client() as client:
            return client.mixture(self.mixture_id_).responsibilities(rows)

    def predict(self, X: ArrayLike) -> Integers:  # noqa: N803
        """Returns the likeliest component (N,) of points X (N, D)."""
        labels: Integers = self.predict_proba(X).argmax(axis=1)
        return labels

    def sample(self, n_samples: int = 1) -> tuple[Floats, Integers]:
        """Returns points (n_samples, D) and their components (n_samples,), independent and in no order.

        Raises:
            ValueError: n_samples is below 1.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; it must be at least 1")
        with self._client() as client:
            mixture = client.mixture(self.mixture_id_)
            return mixture.sample_with_components(n_samples, seed=self._seed())

    def bic(self, X: ArrayLike) -> float:  # noqa: N803
        """Returns the Bayesian information criterion on points X (N, D); lower is better."""
        scores = self.score_samples(X)
        return float(self.result_.n_parameters * np.log(len(scores)) - 2 * scores.sum())

    def aic(self, X: ArrayLike) -> float:  # noqa: N803
        """Returns Akaike's information criterion on points X (N, D); lower is better."""
        return float(2 * self.result_.n_parameters - 2 * self.score_samples(X).sum())

    def _client(self) -> Client:
        return Client(self.url, api_key=self.api_key)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(_MOST_SEED))

    def _asked(self, points: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        checked: NDArray[Any] = validate_data(self, points, dtype=[np.float64, np.float32], reset=False)
        return checked

    def _keep(self, fit_id: str, result: FitResult) -> None:
        self.fit_id_, self.mixture_id_, self.result_ = fit_id, result.mixture_id, result
        self.weights_ = np.array(result.mixture.weights)
        self.means_ = np.array(result.mixture.means)
        self.covariances_ = np.array(result.mixture.covariances)
        self.precisions_, self.precisions_cholesky_ = _precisions(
            self.covariances_, result.mixture.covariance_type
        )
        self.converged_ = result.outcome == "converged"
        self.n_iter_ = result.n_steps
        self.lower_bound_ = float(result.mean_log_likelihood)


def _precisions(covariances: Floats, covariance_type: str) -> tuple[Floats, Floats]:
    """Returns the inverses of covariances and their factors, in the same shape."""
    if covariance_type in ("diag", "spherical"):
        return 1 / covariances, 1 / np.sqrt(covariances)
    # With covariance = L L^T, precision = U U^T for U = L^-T, which is upper triangular.
    factors = np.linalg.inv(np.linalg.cholesky(covariances)).swapaxes(-1, -2)
    return factors @ factors.swapaxes(-1, -2), factors
