"""How many bytes a fit may take, estimated before any of them is allocated."""

from __future__ import annotations

import torch

from service.mixture.blocked_points import BLOCK_NUMBERS
from service.mixture.families import FAMILIES
from service.mixture.feature_sums import CHUNK_BYTES, KEPT_FEATURES_BYTES, SMALLEST_CHUNK
from service.mixture.midway import SLICED_SUMS_BYTES
from service.mixture.optimizers import em, lbfgs
from service.mixture.options import FitOptions
from service.mixture.starts import SUBSAMPLE, SUBSAMPLE_PER_COMPONENT, SUBSAMPLE_PER_FEATURE

# What torch and its threads take beside tensors once a fit has run.
OVERHEAD_BYTES = 64 << 20
# A larger dataset is not copied into memory, which makes a pass on a CPU slower by a fifth or so.
LARGEST_COPIED_BYTES = 128 << 20


def stays_on_disk(n_samples: int, n_features: int) -> bool:
    """Whether a fit on a CPU looks at its points where they are stored, in a mapped file."""
    return 8 * n_samples * n_features > LARGEST_COPIED_BYTES


def estimate_fit_bytes(
    n_samples: int,
    n_features: int,
    options: FitOptions,
    device_type: str = "cpu",
    *,
    weighted: bool = True,
    fetched_bytes: int = 0,
) -> int:
    """An upper estimate of a fit's memory in bytes, the given points included.

    Args:
        n_samples: N.
        n_features: D.
        options: of the fit.
        device_type: cpu or cuda.
        weighted: whether points may count differently.
        fetched_bytes: what is held of points that stay elsewhere and are fetched part by part.
    """
    item = 4 if options.dtype == "float32" else 8
    most = max(options.n_components)
    diagonal = all(FAMILIES[name].diagonal for name in options.covariance_type)
    covariance = n_features if diagonal else n_features * n_features
    if device_type == "cpu" and stays_on_disk(n_samples, n_features):
        # A few blocks of points, and which points are held out, have a weight, or come next.
        minibatches = options.optimizer.get("batch_size") is not None
        chosen_from = weighted or minibatches or options.criterion == "held_out"
        data = fetched_bytes + 4 * 8 * BLOCK_NUMBERS + (4 * 8 * n_samples if chosen_from else 0)
    else:
        # Given points, the standardised ones, and the copy of a split when some are held out.
        data = n_samples * (n_features * (8 + 8 + item) + 2 * 8)
    rows = options.n_init * most
    mixtures = 8 * rows * (1 + n_features + covariance)
    histories = 2 * max(em.MEMORY, lbfgs.MEMORY) + 24
    n_rows = 1 + n_features + covariance
    # Twice a chunk for each thread, and the sums of the slices for each restart.
    chunk = 2 * torch.get_num_threads() * max(CHUNK_BYTES, SMALLEST_CHUNK * item * (most + n_rows))
    chunk += options.n_init * max(SLICED_SUMS_BYTES, 2 * 8 * most * n_rows)
    sample = min(
        n_samples, max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * most, SUBSAMPLE_PER_FEATURE * n_features)
    )
    starts = 8 * sample * (3 * n_features + 2 * most)
    return int(data + mixtures * histories + chunk + KEPT_FEATURES_BYTES + starts + OVERHEAD_BYTES)
