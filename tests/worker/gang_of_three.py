"""What three processes do together for test_ranks.py: torch takes seconds to start, so they start once."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.mixture import FitOptions, Group, InvalidFit, fit, recover, scores
from service.mixture.gaussian_mixture import GaussianMixture
from service.worker.ranks import OutOfStep, RankLost, Seat, joined
from tests.mixture.test_blocked_points import blocked

N_SAMPLES = 1501
TWO_STAGES = 24_000
# Where the shares of 1, 2 and 3 ranks begin: uneven, and with the weights below one is left without points.
CUTS = {1: [0.0, 1.0], 2: [0.0, 0.37, 1.0], 3: [0.0, 0.25, 0.3, 1.0]}

CASES: dict[str, dict[str, Any]] = {
    "em on a sample, then on all": {"n_samples": TWO_STAGES, "n_init": 4, "covariance_type": ("full",)},
    "selection of K and family": {
        "n_components": (2, 3),
        "covariance_type": ("tied", "diag", "spherical", "VEE"),
        "criterion": "icl",
        "n_init": 2,
    },
    "held out": {"n_components": (2, 3), "criterion": "held_out", "held_out_fraction": 0.2},
    "lbfgs": {"optimizer": {"name": "lbfgs"}, "weighted": True},
    "adam from the random start": {
        "optimizer": {"name": "adam", "learning_rate": 0.05},
        "initialization": {"method": "random"},
        "weighted": True,
        "max_steps": 60,
    },
    "minibatches": {
        "optimizer": {"name": "sgd", "learning_rate": 0.05, "batch_size": 64},
        "weighted": True,
        "max_steps": 60,
    },
    "last look in pieces": {"covariance_type": ("full", "diag"), "piece": 100, "weighted": True},
    "one component, mapped": {"n_components": (1,), "mapped": True},
    # On its way to an optimum a pass may err by as much as the tolerance: here by less than is compared.
    "narrow": {"narrow": True, "initialization": {"method": "kmeans"}, "tolerance": 1e-10},
    "float32, weighted": {"dtype": "float32", "weighted": True},
}


def points_of(n_samples: int, *, narrow: bool = False) -> torch.Tensor:
    """Points (2, N) of three clusters; if narrow, one too narrow for products of features."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[0.0, 4.0, -4.0], [0.0, 50.0, 20.0]], dtype=torch.float64)
    labels = torch.randint(3, (n_samples,), generator=generator)
    noise = torch.randn(2, n_samples, dtype=torch.float64, generator=generator)
    spread = torch.tensor([[0.7, 0.7, 0.7], [6.0, 6.0, 6.0]], dtype=torch.float64)
    if narrow:
        spread[:, 2] *= 1e-5
    return centres[:, labels] + noise * spread[:, labels]


def weights_of(n_samples: int) -> torch.Tensor:
    """Weights (N,), none in the first third."""
    place = torch.arange(n_samples, dtype=torch.float64)
    return torch.where(place < n_samples / 3, 0.0, (place % 7) / 3)


def numbers_of(case: dict[str, Any], group: Group, **how: Any) -> dict[str, Any]:
    """A fit's result on this rank's share of the points."""
    asked = {
        "n_samples": N_SAMPLES,
        "weighted": False,
        "mapped": False,
        "narrow": False,
        "piece": None,
    } | case
    n_samples, piece = asked.pop("n_samples"), asked.pop("piece")
    points = points_of(n_samples, narrow=asked.pop("narrow"))
    weights = weights_of(n_samples) if asked.pop("weighted") else None
    start, stop = (round(cut * n_samples) for cut in CUTS[group.size][group.rank : group.rank + 2])
    own: Any = points[:, start:stop].contiguous()
    if asked.pop("mapped"):
        own = blocked(own, (stop - start,))
    weights = None if weights is None else weights[start:stop]
    options = FitOptions(**({"n_components": (3,), "n_init": 3, "seed": 4} | asked))
    with pytest.MonkeyPatch.context() as monkeypatch:
        if piece is not None:
            monkeypatch.setattr(scores, "CHUNKS_IN_A_PIECE", 1)
            monkeypatch.setattr(scores.density, "CHUNK_NUMBERS", piece * 3 * len(points))
        report = fit(own, options, sample_weights=weights, group=group, **how)
    if report.mixture is None:
        return {"outcome": report.outcome}
    names = ("weights", "means", "covariances")
    return {name: getattr(report.mixture, name).numpy() for name in names} | {"result": report.result}


def _recovery(group: Group) -> dict[str, Any]:
    gold = GaussianMixture.from_parameters(
        weights=[0.5, 0.5],
        means=[[0.0, 0.0], [3.0, 3.0]],
        covariances=[1.0, 1.0],
        covariance_type="spherical",
    )
    points, components = gold.sample(400, 0)
    own = slice(*(round(400 * cut) for cut in CUTS[group.size][group.rank : group.rank + 2]))
    return recover(gold, gold, points.T[:, own], components[own], group=group)


def _asked_to_stop(group: Group) -> list[str]:
    """How fits end when rank 0 alone hears of it."""
    ends = []
    for outcome in ("cancelled", "timed_out", "released"):

        def watch(progress: Any, outcome: str = outcome) -> str | None:
            assert group.rank == 0
            return outcome if progress.step == 3 else None

        asked = watch if group.rank == 0 else None
        ends.append(numbers_of({"tolerance": 0.0}, group, watch=asked)["outcome"])
    return ends


def _refusals(group: Group) -> list[str]:
    """What is said on every rank of points and weights that are bad on the last one."""
    last = group.rank == group.size - 1
    bad, good = torch.tensor([[0.0, torch.nan]]).double(), torch.tensor([[0.0, 1.0]]).double()
    weights = torch.tensor([1.0, -1.0 if last else 1.0]).double()
    options = FitOptions((1,))
    said = []
    for points, sample_weights in ((bad if last else good, None), (good, weights), (good, 0 * weights)):
        with pytest.raises(InvalidFit) as refusal:
            fit(points, options, sample_weights=sample_weights, group=group)
        said.append(str(refusal.value))
    return said


def _checkpointed(group: Group, folder: Path) -> dict[str, Any]:
    """A fit that two ranks began and three end."""
    case = CASES["minibatches"]
    kept: list[bytes] = []
    if group.size == 3:
        return numbers_of(case, group, resume=(folder / "checkpoint").read_bytes())
    numbers = numbers_of(case, group, checkpoint=kept.append, checkpoint_seconds=0.0)
    if group.size == 2 and group.rank == 0:
        (folder / "checkpoint").write_bytes(kept[len(kept) // 2])
    assert bool(kept) == (group.rank == 0)
    return numbers


def _out_of_step(group: Group) -> str:
    one = torch.ones(3, dtype=torch.float64)
    differ = one + (1e-15 if group.rank == 0 else 0.0)
    assert group.summed(one.clone(), alike=one)[0].tolist() == [group.size] * 3
    try:
        group.summed(one.clone(), alike=differ)
    except OutOfStep as error:
        return str(error)
    return ""


def _left_alone(group: Group) -> str:
    """What the others hear when the last rank is gone."""
    if group.rank == group.size - 1:
        os._exit(0)
    try:
        while True:
            group.summed(np.ones(1))
    except RankLost as error:
        return str(error)


def _policies() -> dict[str, int]:
    """How the kernel schedules each thread of this process."""
    return {task.name: os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}


def main(rank: int, folder: Path) -> None:
    """One of three processes: everything by one rank, by two, by three."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for size in (1, 2, 3):
        if rank >= size:
            continue
        threads = _policies()
        with joined(Seat(rank, size, f"file://{folder}/meeting{size}", "cpu")) as group:
            found |= {f"{name}/{size}": numbers_of(case, group) for name, case in CASES.items()}
            found[f"recovery/{size}"] = _recovery(group)
            found[f"stops/{size}"] = _asked_to_stop(group)
            found[f"refusals/{size}"] = _refusals(group)
            found[f"checkpointed/{size}"] = _checkpointed(group, folder)
            if size == 2:
                found["policies"] = threads, _policies()
                found["out of step"] = _out_of_step(group)
            if size == 3:
                (folder / f"found{rank}").write_bytes(pickle.dumps(found))
                found["left alone"] = _left_alone(group)
                (folder / f"found{rank}").write_bytes(pickle.dumps(found))
