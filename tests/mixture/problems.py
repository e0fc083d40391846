"""Data sets and mixtures that several tests share."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from service.mixture import GaussianMixture

REFERENCE = Path(__file__).parent.parent / "reference"


def gold_mixture() -> GaussianMixture:
    """The exercise's three bivariate components, one with correlation 0.8."""
    return GaussianMixture.from_parameters(
        weights=[0.2, 0.4, 0.4],
        means=[[-1, -1], [-1, 1], [1, 1]],
        covariances=[[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
    )


def gold_points(n_samples: int = 1000, seed: int = 0) -> Tensor:
    """Draws from the gold mixture, feature by feature (2, N)."""
    points, _ = gold_mixture().sample(n_samples, seed)
    return points.T.contiguous()


def random_mixture(
    n_components: int, n_features: int, seed: int, covariance_type: str = "full"
) -> GaussianMixture:
    """A mixture with random well-conditioned parameters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    factor = normal(n_components, n_features, n_features) * 0.4
    full = factor @ factor.mT + 0.3 * torch.eye(n_features, dtype=torch.float64)
    diagonal = full.diagonal(dim1=-2, dim2=-1)
    covariances = {"full": full, "tied": full[0], "diag": diagonal, "spherical": diagonal[:, 0]}[
        covariance_type
    ]
    return GaussianMixture.from_parameters(
        weights=torch.softmax(normal(n_components), 0),
        means=2 * normal(n_components, n_features),
        covariances=covariances,
        covariance_type=covariance_type,
    )


def reference_figures() -> list[dict[str, Any]]:
    """Every published figure, with its points under ``points`` (D, N) and its reach as a log-likelihood."""
    document = json.loads((REFERENCE / "figures.json").read_text())
    figures = []
    for figure in document["figures"]:
        dataset = document["datasets"][figure["dataset"]]
        with (REFERENCE / dataset["file"]).open() as file:
            header, *rows = csv.reader(file)
        columns = [header.index(name) for name in dataset.get("columns", header)]
        points = torch.tensor([[float(row[c]) for row in rows] for c in columns], dtype=torch.float64)
        reach = figure["reach"].get("log_likelihood")
        if reach is None:
            reach = 0.5 * (figure["n_parameters"] * math.log(len(rows)) - figure["reach"]["bic"])
        figures.append({**figure, "points": points, "reach_log_likelihood": reach})
    return figures
