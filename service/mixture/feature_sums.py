"""The hot loop: two matrix products over quadratic features around a softmax, chunk by chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from service.mixture.arrays import Numbers, like, tensor_of
from service.mixture.blocked_points import Points, in_memory
from service.mixture.features import QuadraticFeatures
from service.mixture.midway import Midway, added, slices_of
from service.mixture.out_of_memory import is_out_of_memory
from service.mixture.small_sums import SMALL_NUMBERS, SmallSums

# A chunk's features and responsibilities stay in a core's own cache; a GPU has to be given more at once.
CHUNK_BYTES = 3 << 20
GPU_CHUNK_BYTES = 128 << 20
SMALLEST_CHUNK = 64
# All features of a dataset are kept between passes up to this size.
KEPT_FEATURES_BYTES = 8 << 20
# Below this a sum of exponentials may have lost terms to underflow.
_SMALLEST = {torch.float64: 1e-280, torch.float32: 1e-25}
# So many sums of exponentials, none below this, have a product that neither underflows nor overflows.
_N_FACTORS = 8
_SMALLEST_FACTOR = {torch.float64: 1e-35, torch.float32: 1e-4}
# Log-densities in bits rather than nats: torch's powers of two take half the time of its powers of e.
_NAT = math.log2(math.e)

Buffers = tuple[Tensor, Tensor]


class FeatureSums:
    """Sums over points of responsibilities times features, for many mixtures.

    A restart's numbers depend neither on which others run beside it nor on the number of threads, to the last
    bit: the shapes of its products, its chunks and its slices follow from K, F and N alone.
    """

    def __init__(
        self,
        points: Points,
        weights: Tensor | None,
        features: QuadraticFeatures,
        midway: Midway | None = None,
    ) -> None:
        self.features = features
        self._points = points
        self._weights = weights
        kept_bytes = features.n_rows * points.shape[1] * points.element_size()
        self.kept = features.rows_of(in_memory(points)) if kept_bytes <= KEPT_FEATURES_BYTES else None
        self.midway = midway or Midway()
        self._free_buffers: list[tuple[int, Buffers]] = []
        self._chunk_bytes = CHUNK_BYTES if points.device.type == "cpu" else GPU_CHUNK_BYTES
        self._small: SmallSums | None = None

    def __call__(self, theta: Numbers, *, likelihoods_only: bool = False) -> tuple[Numbers, Numbers]:
        """For coefficients theta (R, K, F): sums of logsumexp over k (R,), and R Phi^T (R, K, F), float64.

        No entry of theta . phi may be larger than zero by more than rounding. If asked, only the first sums
        are taken, and there are no others: (R, K, 0).
        """
        n_components = theta.shape[1]
        if self._points.shape[1] == 0:  # other ranks have them all
            none = torch.zeros_like(tensor_of(theta), dtype=torch.float64)
            return like(theta, none.sum((1, 2))), like(theta, none)
        small = self._few_points(n_components)
        if small is not None:
            coefficients = tensor_of(theta).to(self._points.dtype).numpy()
            log_likelihoods, sums = small(coefficients, likelihoods_only=likelihoods_only)
            return like(theta, log_likelihoods), like(theta, sums)
        while True:
            try:
                in_bits = (tensor_of(theta) * _NAT).to(self._points.dtype)
                found = self._by_slices(in_bits, likelihoods_only)
                return like(theta, found[0]), like(theta, found[1])
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or not self._halve_chunks(n_components):
                    raise

    def _few_points(self, n_components: int) -> SmallSums | None:
        """What takes the sums where there are few points for so many components, or None."""
        if self.kept is None or self._points.device.type != "cpu":
            return None
        if n_components * self._points.shape[1] > SMALL_NUMBERS:
            return None
        if self._small is None:
            self._small = SmallSums(self.kept, self._weights)
        return self._small

    def _halve_chunks(self, n_components: int) -> bool:
        """Has chunks take half the memory from now on; False when they cannot be smaller."""
        if self._chunk_width(n_components) <= SMALLEST_CHUNK:
            return False
        self._chunk_bytes //= 2
        self._free_buffers.clear()
        if self._points.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def _by_slices(self, theta: Tensor, likelihoods_only: bool) -> tuple[Tensor, Tensor]:
        _, n_components, n_rows = theta.shape
        width = self._chunk_width(n_components)
        slices = slices_of(self._points.shape[1], width, 8 * n_components * n_rows)
        n_slices = len(slices)
        # Where features are made anew, restarts share them; kept ones let every restart go its own way.
        groups = [theta] if self.kept is None else list(torch.split(theta, 1))
        parts = self.midway.each(
            "likelihoods" if likelihoods_only else "features",
            lambda task: self._slice(
                groups[task // n_slices], slices[task % n_slices], width, likelihoods_only
            ),
            len(groups) * n_slices,
            theta,
            [self._points.shape[1], width, n_slices],
        )
        # One slice after the other, for a reduction's order would depend on the number of restarts.
        totals = [added(parts[i : i + n_slices]) for i in range(0, len(parts), n_slices)]
        return torch.cat([total[0] for total in totals]), torch.cat([total[1] for total in totals])

    def _chunk_width(self, n_components: int) -> int:
        """How many points a chunk has: as many as fit, in chunks of one size, a multiple of eight."""
        n_samples = self._points.shape[1]
        rows = self.features.n_rows + self.features.n_scratch_rows + n_components
        most = max(SMALLEST_CHUNK, self._chunk_bytes // (rows * self._points.element_size()))
        n_chunks = -(-n_samples // most)
        return (-(-n_samples // n_chunks) + 7) // 8 * 8

    def _slice(
        self, theta: Tensor, starts: range, width: int, likelihoods_only: bool
    ) -> tuple[Tensor, Tensor]:
        """The sums (R,) and (R, K, F) or (R, K, 0) over the chunks that begin at these points."""
        n_restarts, n_components, n_rows = theta.shape
        n_sums = 0 if likelihoods_only else n_rows
        sums = torch.zeros((n_restarts, n_components, n_sums), dtype=torch.float64, device=theta.device)
        log_totals = sums.new_zeros(n_restarts)
        buffers = self._buffers(n_components, width)
        for start in starts:
            stop = min(start + width, self._points.shape[1])
            phi, joint = self._chunk(start, stop, n_components, buffers)
            weights = None if self._weights is None else self._weights[start:stop]
            for restart in range(n_restarts):
                scale, log_likelihood = _densities(theta[restart], phi, weights, joint)
                log_totals[restart] += log_likelihood
                if not likelihoods_only:
                    _add_product(joint.mul_(scale), phi, sums[restart])
        self._free_buffers.append((n_components, buffers))
        return log_totals, sums

    def _buffers(self, n_components: int, width: int) -> Buffers:
        """Room for a chunk's features and its responsibilities; a slice that is done leaves it to another."""
        try:
            made_for, buffers = self._free_buffers.pop()
        except IndexError:
            made_for = 0
        if made_for == n_components:
            return buffers
        n_rows = 0 if self.kept is not None else self.features.n_rows + self.features.n_scratch_rows
        return self._points.new_empty(n_rows * width), self._points.new_empty(n_components * width)

    def _chunk(self, start: int, stop: int, n_components: int, buffers: Buffers) -> tuple[Tensor, Tensor]:
        """Features (F, n) of these points, and room for (K, n)."""
        size = stop - start
        joint = buffers[1][: n_components * size].view(n_components, size)
        if self.kept is not None:
            return self.kept[:, start:stop], joint
        n_rows = self.features.n_rows + self.features.n_scratch_rows
        phi = buffers[0][: n_rows * size].view(n_rows, size)
        self.features.write(self._points[:, start:stop], phi)
        return phi[: self.features.n_rows], joint


def _add_product(shares: Tensor, phi: Tensor, sums: Tensor) -> None:
    """Adds shares (K, n) phi (F, n)^T to sums (K, F), which are float64 whatever the rest is."""
    if shares.dtype == sums.dtype:
        sums.addmm_(shares, phi.T)
    else:
        sums += torch.mm(shares, phi.T)


def _densities(theta: Tensor, phi: Tensor, weights: Tensor | None, joint: Tensor) -> tuple[Tensor, Tensor]:
    """Fills joint (K, n) with numbers in the ratio of responsibilities.

    What makes them responsibilities times weights (n,) comes back, and the sum of the points' logsumexp.
    Log-densities theta . phi, in bits, are at most zero, so powers of two cannot overflow and need no maximum
    of their own. Where all entries of a point underflow they are had again, with the maximum taken off first.
    """
    torch.mm(theta, phi, out=joint)
    totals = joint.exp2_().sum(0)
    lowest = float(totals.amin())
    if lowest > _SMALLEST[joint.dtype]:
        scale = totals.reciprocal()
        if weights is None and lowest > _SMALLEST_FACTOR[joint.dtype] and len(totals) % _N_FACTORS == 0:
            totals = totals.view(_N_FACTORS, -1).prod(0)  # a logarithm costs as much as eight products
        log_totals = totals.log_()
    else:
        torch.mm(theta, phi, out=joint)
        joint.div_(_NAT)
        log_totals = torch.logsumexp(joint, dim=0)
        joint.sub_(log_totals).exp_()
        scale = torch.ones_like(log_totals)
    if weights is not None:
        scale.mul_(weights)
        log_totals.mul_(weights)
    return scale, log_totals.sum(dtype=torch.float64)
