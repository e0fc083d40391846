"""A client of the service, blocking or awaited, with arrays in and out.

from service.client import Client

with Client("http://127.0.0.1:8000") as client:
    fit = client.fit(X, n_components=3)
    fit.wait()
    print(fit.mixture().log_density(X))
"""

from service.client.clients import AsyncClient, Client
from service.client.fit import AsyncFit, Fit
from service.client.mixture import AsyncMixture, Mixture
from service.client.problems import (
    BadRequest,
    Conflict,
    FitUnsuccessful,
    Forbidden,
    InternalError,
    MixserveError,
    NotAcceptable,
    NotFound,
    Place,
    Problem,
    ServiceUnreachable,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
    UnsupportedMediaType,
)

__all__ = [
    "AsyncClient",
    "AsyncFit",
    "AsyncMixture",
    "BadRequest",
    "Client",
    "Conflict",
    "Fit",
    "FitUnsuccessful",
    "Forbidden",
    "InternalError",
    "MixserveError",
    "Mixture",
    "NotAcceptable",
    "NotFound",
    "Place",
    "Problem",
    "ServiceUnreachable",
    "TooLarge",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Unprocessable",
    "UnsupportedMediaType",
]
