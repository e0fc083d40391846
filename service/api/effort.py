"""About how long a fit takes, known before it starts: whether to keep a worker free beside it."""

from service.mixture.families import FAMILIES
from service.schemas.fit import Adam, FitRequest, Sgd

# Measured on two cores between 0.2 and 0.7; a GPU is faster, which errs on the side of calling a fit large.
_NANOSECONDS_PER_PRODUCT = 1.0
_SECONDS_PER_STEP = 1e-4
# Few fits that are told when to stop take more.
_USUAL_STEPS = 200


def estimated_seconds(request: FitRequest, n_samples: int, n_features: int) -> float:
    """Returns about how long a fit takes, right within a factor of ten or so.

    A step multiplies each of its points' features, squares included, with each component of each restart.
    """
    n_steps = request.max_steps if request.tolerance == 0 else min(request.max_steps, _USUAL_STEPS)
    n_points = n_samples
    if isinstance(request.optimizer, Sgd | Adam) and request.optimizer.batch_size is not None:
        n_points = min(n_samples, request.optimizer.batch_size)
    families = (
        request.covariance_type if isinstance(request.covariance_type, list) else [request.covariance_type]
    )
    several = request.n_components if isinstance(request.n_components, list) else [request.n_components]
    products = sum(
        n_points * request.n_init * n_components * _n_products(family, n_features)
        for family in families
        for n_components in several
    )
    n_candidates = len(families) * len(several)
    return n_steps * (n_candidates * _SECONDS_PER_STEP + products * _NANOSECONDS_PER_PRODUCT * 1e-9)


def _n_products(family: str, n_features: int) -> int:
    squares = n_features if FAMILIES[family].diagonal else n_features * (n_features + 1) // 2
    return squares + n_features + 1
