"""One pass over the data by one process and by two, each with one core; and what a pass of no points takes.

    python -m benchmarks.sharded_pass [--case 2000000,16,16] [--repeats 7] [--empty-bytes 1000000]

Prints one JSON line per case. Ranks are processes with one thread, each held to a core of its own, and go
through the numerical core as a fit does: statistics of their share of the points, one sum over all ranks, the
closed-form update. ``ratio`` is one rank's seconds by two ranks', ``processor_ratio`` that of a rank's
processor time, which other programs disturb less. The line of ``"points": 0`` is the overhead: a pass of two
ranks that have no points, whose statistics have so many bytes; beside it the bare ``all_reduce`` of
torch.distributed. The last line is of a whole fit by one process: how often it looked at all the points,
which docs/large-fits.md reckons with. All together takes less than a minute on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist  # noqa: TID251 - its bare sum is measured beside ours
from torch import Tensor

from benchmarks.mixture_machine import print_line
from service.mixture import BlockedPoints, FitOptions, Group, fit
from service.mixture.components import Components
from service.mixture.families import FAMILIES
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.shards import Shards
from service.mixture.standardization import StandardizedPoints
from service.mixture.statistics import StatisticsPass
from service.worker.ranks import Seat, joined

SPAWN = multiprocessing.get_context("spawn")
# N, D, K.
CASES = [(2_000_000, 2, 5), (500_000, 16, 16), (100_000, 64, 16)]
Case = tuple[int, int, int]


def share_of(case: Case, group: Group) -> Tensor:
    """Points (D, n) of a rank, standard normal."""
    n_samples, n_features, _ = case
    start, stop = (n_samples * place // group.size for place in (group.rank, group.rank + 1))
    generator = torch.Generator().manual_seed(start)
    return torch.randn(n_features, stop - start, dtype=torch.float64, generator=generator)


def step_of(points: Tensor, n_components: int, group: Group) -> Callable[[], object]:
    """A pass over the points of all ranks and the update that follows."""
    n_features, n_own = points.shape
    shards, one = Shards.of(group, n_own), torch.ones(n_features, dtype=torch.float64)
    data = StandardizedPoints(points, None, float(max(shards.n_samples, 1)), 0 * one, one, shards)
    statistics = StatisticsPass(data, diagonal=False, regularization=1e-6)
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1, n_components, n_features, dtype=torch.float64, generator=generator)
    cholesky = torch.eye(n_features, dtype=torch.float64).expand(1, n_components, n_features, n_features)
    log_weights = torch.full((1, n_components), -math.log(n_components), dtype=torch.float64)
    components = Components(log_weights, means, cholesky.contiguous())

    def step() -> object:
        sums = statistics(components)
        if shards.n_samples == 0:
            return sums
        return from_coordinates(
            FAMILIES["full"], coordinates(FAMILIES["full"], sums), n_components, n_features
        )

    return torch.inference_mode()(step)


def seconds(step: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median seconds on the clock and of this processor; all ranks begin together."""
    times = []
    for _ in range(repeats + 1):
        dist.barrier()
        began, worked = time.perf_counter(), time.process_time()
        step()
        times.append((time.perf_counter() - began, time.process_time() - worked))
    return median(time for time, _ in times[1:]), median(worked for _, worked in times[1:])


class CountedBlocks:
    """One block of points (D, N), and how many of its numbers have been looked at."""

    def __init__(self, points: Tensor) -> None:
        self._points = points
        self.n_features = points.shape[0]
        self.starts = torch.tensor([0, points.shape[1]])
        self.n_looked_at = 0

    def part(self, block: int, first: int, size: int) -> Tensor:
        """Points (D, size) from the point `first` on."""
        assert block == 0
        self.n_looked_at += size * self.n_features
        return self._points[:, first : first + size]

    def gathered(self, index: Tensor) -> Tensor:
        """A copy (D, n) of the points (n,) int64."""
        self.n_looked_at += index.shape[0] * self.n_features
        return self._points[:, index]


def whole_fit(n_samples: int, n_features: int, n_components: int) -> dict[str, float]:
    """How a fit of overlapping clusters with the defaults of the service went."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(n_features, n_components, dtype=torch.float64, generator=generator)
    labels = torch.randint(n_components, (n_samples,), generator=generator)
    noise = torch.randn(n_features, n_samples, dtype=torch.float64, generator=generator)
    blocks = CountedBlocks(centres[:, labels] + noise)
    began = time.perf_counter()
    report = fit(BlockedPoints(blocks), FitOptions((n_components,)))
    return {
        "points": n_samples,
        "n_features": n_features,
        "n_components": n_components,
        "fit_seconds": time.perf_counter() - began,
        "n_steps": report.result["n_steps"],
        "n_passes": report.result["n_passes"],
        "looks_at_all_points": blocks.n_looked_at / (n_samples * n_features),
        "bytes_per_look": 8.0 * n_samples * n_features,
    }


def empty_case(n_bytes: int) -> Case:
    """No points, and components whose statistics have about so many bytes."""
    n_features = 16
    n_rows = 1 + n_features * (n_features + 3) // 2
    return 0, n_features, max(1, round(n_bytes / (8 * n_rows)))


def rank_main(rank: int, size: int, folder: str, arguments: argparse.Namespace) -> None:
    """Measures all cases as one of so many ranks; rank 0 writes down what came out."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    found: list[tuple[float, float]] = []
    with joined(Seat(rank, size, Path(folder, f"meeting{size}").as_uri(), "cpu")) as group:
        for case in arguments.cases:
            points = share_of(case, group)
            found.append(seconds(step_of(points, case[2], group), arguments.repeats))
            del points
        empty = empty_case(arguments.empty_bytes)
        buffer = torch.zeros(arguments.empty_bytes // 8, dtype=torch.float64)
        found.append(seconds(step_of(share_of(empty, group), empty[2], group), 20 * arguments.repeats))
        found.append(seconds(lambda: dist.all_reduce(buffer), 20 * arguments.repeats))
    if rank == 0:
        Path(folder, f"found{size}").write_text(json.dumps(found))


def measured(size: int, arguments: argparse.Namespace) -> list[tuple[float, float]]:
    """Seconds of every case by so many ranks, on the clock and of rank 0's processor."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            SPAWN.Process(target=rank_main, args=(rank, size, folder, arguments)) for rank in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        return [(clock, worked) for clock, worked in json.loads(Path(folder, f"found{size}").read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", help="N,D,K; may be given several times")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--empty-bytes", type=int, default=1_000_000)
    arguments = parser.parse_args()
    given = [tuple(int(part) for part in case.split(",")) for case in arguments.case or []]
    arguments.cases = given or CASES
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    one, two = measured(1, arguments), measured(2, arguments)
    for case, alone, both in zip(arguments.cases, one, two, strict=False):
        n_samples, n_features, n_components = case
        print_line(
            points=n_samples,
            n_features=n_features,
            n_components=n_components,
            statistics_bytes=8 * n_components * (1 + n_features * (n_features + 3) // 2),
            one_rank_seconds=alone[0],
            two_ranks_seconds=both[0],
            ratio=alone[0] / both[0],
            one_rank_processor_seconds=alone[1],
            processor_ratio=alone[1] / both[1],
        )
    print_line(
        points=0,
        statistics_bytes=arguments.empty_bytes,
        two_ranks_seconds=two[-2][0],
        all_reduce_seconds=two[-1][0],
        one_rank_seconds=one[-2][0],
    )
    print_line(**whole_fit(400_000, 16, 16))


if __name__ == "__main__":
    main()
