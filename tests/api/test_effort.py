"""How long a fit is taken to take: enough to tell huge fits from small ones."""

from typing import Any

import pytest

from service.api.effort import estimated_seconds
from service.schemas.fit import FitRequest
from service.storage.large_fits import LARGE_SECONDS


def _estimate(n_samples: int, n_features: int, **fields: Any) -> float:
    request = FitRequest.model_validate({"dataset": {"id": "x"}, "n_components": 3} | fields)
    return estimated_seconds(request, n_samples, n_features)


def test_an_everyday_fit_is_small_and_a_huge_one_is_large() -> None:
    assert _estimate(1000, 2) < LARGE_SECONDS / 10
    assert _estimate(1000, 2, n_components=[1, 2, 3, 4, 5], covariance_type=["full", "diag"]) < LARGE_SECONDS
    assert _estimate(1_000_000, 16, n_components=16) > LARGE_SECONDS
    assert _estimate(1000, 2, tolerance=0, max_steps=10**9) > LARGE_SECONDS


@pytest.mark.parametrize(
    "more",
    [
        {"n_components": 6},
        {"n_components": [3, 4]},
        {"covariance_type": ["full", "diag"]},
        {"n_init": 20},
        {"tolerance": 0},
        {"tolerance": 0, "max_steps": 5000},
    ],
)
def test_more_to_do_takes_longer(more: dict[str, Any]) -> None:
    assert _estimate(1000, 4, **more) > _estimate(1000, 4)


def test_less_to_do_takes_shorter() -> None:
    whole = _estimate(100_000, 4, optimizer={"name": "sgd"})
    assert _estimate(100_000, 4, optimizer={"name": "sgd", "batch_size": 10}) < whole / 10
    assert _estimate(100_000, 4, covariance_type="diag") < _estimate(100_000, 4)
    assert _estimate(100_000, 4, max_steps=10) < _estimate(100_000, 4)
