"""Points that stay where they lie: a fit looks at them part by part and comes to the same numbers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from service.mixture import FitOptions, fit
from service.mixture.blocked_points import BlockedPoints, extremes, in_memory, only
from service.mixture.blocks import FetchedBlocks, MappedBlocks

SIZES = (700, 700, 700, 311)


def blocked(points: torch.Tensor, sizes: tuple[int, ...] = SIZES, gap: int = 5) -> BlockedPoints:
    """The points in blocks with something else between them."""
    pieces, offsets, strides, at, start = [], [], [], 0, 0
    for size in sizes:
        pieces += [torch.full((gap,), torch.nan), points[:, start : start + size].reshape(-1)]
        offsets.append(at + gap)
        strides.append(size)
        at += gap + points.shape[0] * size
        start += size
    assert start == points.shape[1]
    starts = torch.tensor([0, *np.cumsum(sizes)])
    numbers = torch.cat(pieces).double()
    return BlockedPoints(
        MappedBlocks(points.shape[0], numbers, starts, torch.tensor(offsets), torch.tensor(strides))
    )


class Source:
    """Points that are asked for block by block, and how often each was."""

    def __init__(self, points: torch.Tensor, sizes: tuple[int, ...] = SIZES) -> None:
        self.parts = [part.clone() for part in points.split(list(sizes), dim=1)]
        self.starts = torch.tensor([0, *np.cumsum(sizes)])
        self.fetched: list[int] = []

    def __call__(self, number: int) -> torch.Tensor:
        self.fetched.append(number)
        return self.parts[number].clone()

    def blocks(self, kept_bytes: int) -> FetchedBlocks:
        return FetchedBlocks(self.parts[0].shape[0], self.starts, self, kept_bytes)


def fetched(points: torch.Tensor) -> BlockedPoints:
    """The points in blocks that are fetched, of which one is kept."""
    return BlockedPoints(Source(points).blocks(kept_bytes=points[:, : SIZES[0]].numel() * 8))


KINDS = {"mapped": blocked, "fetched": fetched}


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 4.0, -4.0], [0.0, 50.0, 20.0]], dtype=torch.float64)
    labels = torch.randint(3, (sum(SIZES),), generator=generator)
    noise = torch.randn(2, sum(SIZES), dtype=torch.float64, generator=generator)
    return centres[:, labels] + noise * torch.tensor([[0.7], [6.0]])


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_the_points(points: torch.Tensor, kind: str) -> None:
    lying = KINDS[kind](points)
    assert lying.shape == points.shape
    for start, stop in ((0, 1), (0, 700), (699, 701), (650, 2200), (2100, 9999), (5, 5), (0, None)):
        assert torch.equal(lying[:, start:stop], points[:, start:stop])
    index = torch.tensor([2410, 0, 699, 700, 0, 1399])
    assert torch.equal(lying[:, index], points[:, index])
    assert torch.equal(lying.index_select(1, index), points[:, index])
    assert torch.equal(in_memory(lying), points)
    assert all(torch.equal(one, other) for one, other in zip(extremes(lying), extremes(points), strict=True))
    kept = torch.tensor([3, 698, 702, 2000, 2410])
    some = only(lying, kept)
    assert isinstance(some, BlockedPoints)
    assert torch.equal(some[:, 1:4], points[:, kept][:, 1:4])
    assert torch.equal(some[:, torch.tensor([4, 0])], points[:, kept][:, [4, 0]])
    assert torch.equal(in_memory(only(some, torch.tensor([1, 3]))), points[:, kept[[1, 3]]])


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_standardised_on_their_way_out(points: torch.Tensor, kind: str) -> None:
    shift, scale = points.mean(1), points.std(1)
    wanted = (points - shift[:, None]) / scale[:, None]
    for dtype in (torch.float64, torch.float32):
        standard = KINDS[kind](points).standardized(shift, scale, dtype)
        assert torch.equal(in_memory(standard), wanted.to(dtype))
        assert torch.equal(standard[:, torch.tensor([7, 2000])], wanted[:, [7, 2000]].to(dtype))


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.mixture.blocked_points.BLOCK_NUMBERS", 1000)


OPTIONS = {
    "plain": {},
    "two stages": {"n_init": 4, "covariance_type": ("full", "diag", "VEE")},
    "minibatches": {"optimizer": {"name": "adam", "learning_rate": 0.01, "batch_size": 64}, "max_steps": 60},
    "held out": {"n_components": (2, 3), "criterion": "held_out", "held_out_fraction": 0.2},
    "float32": {"dtype": "float32"},
    "spherical": {"covariance_type": ("spherical",)},
    "one": {"n_components": (1,)},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("kind", "weighted"), [("mapped", False), ("mapped", True), ("fetched", True)])
def test_a_fit_comes_to_the_same_numbers(points: torch.Tensor, name: str, kind: str, weighted: bool) -> None:
    options = FitOptions(**({"n_components": (3,), "n_init": 2, "seed": 4} | OPTIONS[name]))
    weights = torch.arange(points.shape[1], dtype=torch.float64) % 3 if weighted else None
    expected = fit(points, options, sample_weights=weights)
    found = fit(KINDS[kind](points), options, sample_weights=weights)
    assert found.mixture is not None
    assert expected.mixture is not None
    for field in ("weights", "means", "covariances"):
        assert torch.equal(getattr(found.mixture, field), getattr(expected.mixture, field))
    same = {"elapsed_seconds": 0.0}
    assert found.result | same == expected.result | same


def test_the_first_blocks_are_kept_and_the_others_fetched_once_a_pass(points: torch.Tensor) -> None:
    source = Source(points)
    lying = BlockedPoints(source.blocks(kept_bytes=2 * source.parts[0].numel() * 8))
    for _ in range(3):
        assert torch.equal(in_memory(lying), points)
    assert source.fetched == [0, 1, 2, 3, 2, 3, 2, 3]
    source.fetched.clear()
    everywhere = torch.arange(sum(SIZES) - 1, -1, -100)
    assert torch.equal(lying[:, everywhere], points[:, everywhere])
    assert source.fetched == [2, 3]


def test_threads_at_one_block_wait_for_one_fetch(points: torch.Tensor) -> None:
    source = Source(points)
    all_there, another = threading.Barrier(4, timeout=30), threading.Event()

    def fetch(number: int) -> torch.Tensor:
        if source.fetched:
            another.set()
        block = source(number)
        another.wait(0.2)  # would another come, it came now
        return block

    lying = BlockedPoints(FetchedBlocks(2, source.starts, fetch, kept_bytes=0))

    def look() -> torch.Tensor:
        all_there.wait()
        return lying[:, 10:20].clone()

    with ThreadPoolExecutor(4) as threads:
        looking = [threads.submit(look) for _ in range(4)]
        assert all(torch.equal(one.result(), points[:, 10:20]) for one in looking)
    assert source.fetched == [0]
