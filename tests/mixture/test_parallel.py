"""The pass on several threads, and the memory that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from service.mixture.parallel import run_parallel
from service.mixture.small_sums import SmallSums
from service.mixture.statistics import StatisticsPass
from service.mixture.threads import PARALLEL_WORK, n_threads, threads_for
from tests.mixture.problems import random_mixture
from tests.mixture.test_statistics import components_of, plain_points


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_restart_has_the_same_bits_beside_others_and_on_any_number_of_threads(
    monkeypatch, two_threads, kept, dtype
):
    monkeypatch.setattr("service.mixture.feature_sums.CHUNK_BYTES", 1 << 14)
    if not kept:
        monkeypatch.setattr("service.mixture.feature_sums.KEPT_FEATURES_BYTES", 0)
    points = torch.randn(3, 20_001, dtype=dtype, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(20_001, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    passed = StatisticsPass(plain_points(points, weights), diagonal=False, regularization=0.1)
    components = components_of(*[random_mixture(4, 3, seed) for seed in range(3)])
    every = passed(components)
    torch.set_num_threads(1)
    again = passed(components)
    alone = passed(components.rows(torch.tensor([1])))
    for name in ("log_likelihood", "counts", "first", "second"):
        assert torch.equal(getattr(every, name), getattr(again, name))
        assert torch.equal(getattr(every, name)[1:2], getattr(alone, name))


@pytest.mark.parametrize("n_restarts", [2, 3, 5])
def test_restarts_are_shared_out_where_each_is_much_work(monkeypatch, two_threads, n_restarts):
    monkeypatch.setattr("service.mixture.small_sums.WORTH_A_THREAD", 1 << 14)
    callers = set()
    block = SmallSums._block

    def noted(self: SmallSums, *given: Any) -> Any:
        callers.add(threading.current_thread())
        return block(self, *given)

    monkeypatch.setattr(SmallSums, "_block", noted)
    points = torch.randn(3, 2_001, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    passed = StatisticsPass(plain_points(points), diagonal=False, regularization=0.1)
    components = components_of(*[random_mixture(4, 3, seed) for seed in range(n_restarts)])
    every = passed(components)
    assert callers
    assert threading.main_thread() not in callers
    torch.set_num_threads(1)
    again = passed(components)
    assert threading.main_thread() in callers
    for name in ("log_likelihood", "counts", "first", "second"):
        assert torch.equal(getattr(every, name), getattr(again, name))


def test_operations_take_one_thread_but_for_much_work_and_passes_what_there_is(two_threads):
    with threads_for(0):
        assert (torch.get_num_threads(), n_threads()) == (1, 2)
        assert run_parallel(lambda number: threading.current_thread(), 2)[0] is not threading.main_thread()
        with threads_for(PARALLEL_WORK):
            assert (torch.get_num_threads(), n_threads()) == (2, 2)
            with pytest.raises(ZeroDivisionError), threads_for(1):
                _ = 1 // (torch.get_num_threads() - 1)
            assert torch.get_num_threads() == 2
        assert (torch.get_num_threads(), n_threads()) == (1, 2)
    assert (torch.get_num_threads(), n_threads()) == (2, 2)
    torch.set_num_threads(1)
    assert n_threads() == 1


def test_tasks_run_on_threads_of_their_own_with_one_torch_thread_each(two_threads):
    together = threading.Barrier(2)

    def task(number: int) -> tuple[int, int, bool]:
        if number < 2:
            together.wait(timeout=60)  # would never end if the tasks ran one after the other
        return number, torch.get_num_threads(), torch.is_inference_mode_enabled()

    with torch.inference_mode():
        assert run_parallel(task, 5) == [(i, 1, True) for i in range(5)]
    assert run_parallel(task, 2) == [(0, 1, False), (1, 1, False)]
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        run_parallel(lambda number: 1 // number, 2)


def test_as_many_threads_as_processors_have_one_each(two_threads):
    allowed = os.sched_getaffinity(0)
    torch.set_num_threads(len(allowed))
    together = threading.Barrier(len(allowed))

    def task(number: int) -> set[int]:
        together.wait(timeout=60)
        return os.sched_getaffinity(0)

    assert sorted(run_parallel(task, len(allowed)), key=sorted) == [{one} for one in sorted(allowed)]
    assert os.sched_getaffinity(0) == allowed


MEMORY = """
import resource, torch
from service.mixture.components import Components
from service.mixture.shards import ALONE, Shards
from service.mixture.standardization import StandardizedPoints
from service.mixture.statistics import StatisticsPass
points = torch.randn(2, 10_000_000, dtype=torch.float64)
weights = torch.rand(10_000_000, dtype=torch.float64)
one = torch.ones(2, dtype=torch.float64)
data = StandardizedPoints(points, weights, float(weights.sum()), 0 * one, one, Shards.of(ALONE, 10_000_000))
means = torch.randn(1, 16, 2, dtype=torch.float64)
cholesky = torch.eye(2, dtype=torch.float64).expand(1, 16, 2, 2)
components = Components(torch.full((1, 16), 1 / 16, dtype=torch.float64).log(), means, cholesky)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
StatisticsPass(data, diagonal=False, regularization=0.0)(components)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_ten_million_points_take_less_than_256_megabytes_beyond_themselves():
    answer = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(answer.stdout) < 256 << 10  # kilobytes
