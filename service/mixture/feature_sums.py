"""The hot loop: two matrix products over quadratic features around a softmax, chunk by chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from service.mixture.features import QuadraticFeatures
from service.mixture.small_sums import SMALL_NUMBERS, SmallSums

# A chunk's buffers stay in the last-level cache, and it is long enough that calls cost nothing beside it;
# all features of a small dataset are kept between passes.
CHUNK_BYTES = 16 << 20
KEPT_FEATURES_BYTES = 32 << 20
# A product with so many features at most is cut into so many slices.
SLICED_ROWS, SLICES = 512, 4
# Below this a sum of exponentials may have lost terms to underflow.
_SMALLEST = {torch.float64: 1e-280, torch.float32: 1e-25}


class FeatureSums:
    """Sums over points of responsibilities times features, for many mixtures.

    A restart's numbers do not depend on which others run beside it, to the last bit: the shapes of its
    products and its chunks follow from K, F and N alone.
    """

    def __init__(self, points: Tensor, weights: Tensor | None, features: QuadraticFeatures) -> None:
        self.features = features
        self._points = points
        self._weights = weights
        kept_bytes = features.n_rows * points.shape[1] * points.element_size()
        self.kept = features.rows_of(points) if kept_bytes <= KEPT_FEATURES_BYTES else None
        self._buffers: tuple[Tensor, Tensor] | None = None
        small = self.kept is not None and points.device.type == "cpu"
        self._small = SmallSums(self.kept, weights) if small else None

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """For coefficients theta (R, K, F): sums of logsumexp over k (R,), and R Phi^T (R, K, F), float64.

        No entry of theta . phi may be larger than zero by more than rounding.
        """
        n_components = theta.shape[1]
        coefficients = theta.to(self._points.dtype)
        if self._small is not None and n_components * self._points.shape[1] <= SMALL_NUMBERS:
            return self._small(coefficients)
        return self._by_chunks(coefficients)

    def _by_chunks(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        n_restarts, n_components, n_rows = theta.shape
        sums = torch.zeros_like(theta, dtype=torch.float64)
        log_totals: list[Tensor] = []
        n_samples = self._points.shape[1]
        chunk = max(64, CHUNK_BYTES // (self._points.element_size() * (n_components + n_rows)))
        for start in range(0, n_samples, chunk):
            stop = min(start + chunk, n_samples)
            phi, joint = self._chunk(start, stop, chunk, n_components)
            weights = None if self._weights is None else self._weights[start:stop]
            parts = []
            for restart in range(n_restarts):
                parts.append(_shares(theta[restart], phi, weights, joint))
                sums[restart] += _product(joint, phi)
            log_totals.append(torch.stack(parts))
        return torch.stack(log_totals).sum(0), sums

    def _chunk(self, start: int, stop: int, chunk: int, n_components: int) -> tuple[Tensor, Tensor]:
        """Features (F, n) of these points and a buffer (K, n), both reused by the next chunk."""
        size, width = stop - start, min(chunk, self._points.shape[1])
        n_rows = 0 if self.kept is not None else self.features.n_rows
        if self._buffers is None or self._buffers[1].numel() != n_components * width:
            self._buffers = (
                self._points.new_empty(n_rows * width),
                self._points.new_empty(n_components * width),
            )
        joint = self._buffers[1][: n_components * size].view(n_components, size)
        if self.kept is not None:
            return self.kept[:, start:stop], joint
        phi = self._buffers[0][: n_rows * size].view(n_rows, size)
        self.features.write(self._points[:, start:stop], phi)
        return phi, joint


def _product(shares: Tensor, phi: Tensor) -> Tensor:
    """Shares (K, n) phi (F, n)^T, in the shapes that matrix libraries are quickest with.

    A product with few entries and long sums is not shared between cores unless it is cut along the sum.
    """
    size = shares.shape[1]
    whole = size - size % SLICES
    if phi.shape[0] > SLICED_ROWS or whole == 0:
        return torch.mm(phi, shares.T).T
    left = torch.unflatten(phi[:, :whole], 1, (SLICES, -1)).transpose(0, 1)
    right = torch.unflatten(shares[:, :whole], 1, (SLICES, -1)).permute(1, 2, 0)
    product = torch.bmm(left, right).sum(0).T
    return product if whole == size else product.addmm(shares[:, whole:], phi[:, whole:].T)


def _shares(theta: Tensor, phi: Tensor, weights: Tensor | None, joint: Tensor) -> Tensor:
    """Fills joint (K, n) with responsibilities times weights; the sum of the points' logsumexp comes back.

    Log-densities are at most zero, so exp cannot overflow and needs no maximum of its own. Where all of
    a point's entries underflow they are had again, with the maximum taken off first.
    """
    torch.mm(theta, phi, out=joint)
    totals = joint.exp_().sum(0)
    if float(totals.amin()) > _SMALLEST[joint.dtype]:
        scale = totals.reciprocal()
        log_totals = totals.log_()
        joint.mul_(scale if weights is None else scale.mul_(weights))
    else:
        torch.mm(theta, phi, out=joint)
        log_totals = torch.logsumexp(joint, dim=0)
        joint.sub_(log_totals).exp_()
        if weights is not None:
            joint.mul_(weights)
    if weights is not None:
        log_totals.mul_(weights)
    return log_totals.sum(dtype=torch.float64)
