"""A pass that finds no memory for its chunks tries smaller ones, and gives up at the smallest."""

from __future__ import annotations

import pytest
import torch

from service.mixture import feature_sums, midway
from service.mixture.feature_sums import SMALLEST_CHUNK, FeatureSums
from service.mixture.features import SquareFeatures

OUT_OF_MEMORY = {
    "gpu": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "numpy": lambda: MemoryError(),
    "driver": lambda: torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
    "library": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
}


def passed(monkeypatch: pytest.MonkeyPatch) -> tuple[FeatureSums, torch.Tensor]:
    monkeypatch.setattr(feature_sums, "KEPT_FEATURES_BYTES", 0)
    points = torch.randn(2, 40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = torch.tensor([[[-0.5, -0.5, 0.0, 0.0, -1.0], [-1.0, -1.0, 0.5, 0.0, -2.0]]], dtype=torch.float64)
    return FeatureSums(points, None, SquareFeatures(2)), theta


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_chunks_are_halved_until_they_fit(monkeypatch: pytest.MonkeyPatch, error) -> None:
    sums, theta = passed(monkeypatch)
    wanted = sums(theta)
    small, _ = passed(monkeypatch)
    widths = []
    allocate = small._buffers

    def scarce(n_components: int, width: int):
        widths.append(width)
        if width > 5_000:
            raise error()
        return allocate(n_components, width)

    monkeypatch.setattr(small, "_buffers", scarce)
    found = small(theta)
    assert widths[0] > 5_000 >= widths[-1]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    widths.clear()
    small(theta)
    assert max(widths) <= 5_000  # what has failed once is not tried again


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_the_smallest_chunks_are_the_last(monkeypatch: pytest.MonkeyPatch, error) -> None:
    sums, theta = passed(monkeypatch)
    widths = []

    def none_left(_: int, width: int):
        widths.append(width)
        raise error()

    monkeypatch.setattr(sums, "_buffers", none_left)
    with pytest.raises(type(error())):
        sums(theta)
    assert min(widths) <= SMALLEST_CHUNK


def test_other_errors_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, theta = passed(monkeypatch)
    tried = []

    def broken(*_):
        tried.append(1)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(midway, "run_parallel", lambda task, n: broken())
    with pytest.raises(RuntimeError, match="illegal memory access"):
        sums(theta)
    assert len(tried) == 1
