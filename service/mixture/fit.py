"""A fit from its points and options to its report."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from service.mixture.blocked_points import Points, blocks_of, extremes, only
from service.mixture.candidates import Candidate, run_candidate
from service.mixture.families import FAMILIES
from service.mixture.invalid import InvalidFit
from service.mixture.journal import Journal
from service.mixture.options import DTYPES, FitOptions
from service.mixture.pieces import Ask, Interrupted, Pieces
from service.mixture.progress import ASKED, Progress
from service.mixture.report import FitReport, Table, interrupted
from service.mixture.restarts import Sight, Watch
from service.mixture.shards import ALONE, Group, Shards
from service.mixture.standardization import StandardizedPoints, standardize

Watcher = Callable[[Progress], str | None]


def fit(
    points: Points,
    options: FitOptions,
    *,
    sample_weights: Tensor | None = None,
    device: str = "cpu",
    watch: Watcher | None = None,
    ask: Ask = lambda: None,
    checkpoint: Callable[[bytes], None] | None = None,
    resume: bytes | None = None,
    checkpoint_seconds: float = 5.0,
    group: Group = ALONE,
) -> FitReport:
    """Fits every candidate of the options and reports the best by their criterion.

    Args:
        points: (D, N), feature by feature, float64 or float32, finite, in data units; those that are too
            many for the memory stay where they lie.
        options: everything else that the fit depends on.
        sample_weights: (N,) how often each point counts; zero leaves it out.
        device: where the passes over the data run.
        watch: called at least once per step; answering "cancelled" or "timed_out" ends the fit so, and
            "released" too, after one more checkpoint.
        ask: called again and again while starts are sought and at the last look at the points; answers as
            watch does.
        checkpoint: called now and then with bytes from which another process can go on.
        resume: the last such bytes of the same fit, to go on to the same numbers.
        checkpoint_seconds: the least time between two checkpoints.
        group: the ranks that do the fit together, all calling this. Each has points and weights of its own,
            some or none, which follow on one another in the order of the ranks; the rest is the same for all,
            but that only rank 0 is asked by ``watch`` and gives checkpoints away.

    Returns:
        The report; a collapse is an outcome in it.

    Raises:
        InvalidFit: for what cannot be fitted, saying what to change.
    """
    options.check()
    points, sample_weights = _checked(points, sample_weights, options, group)
    training, held_out = _split(points, sample_weights, options, group)
    run = _Run(options, watch, group)
    keep = checkpoint if group.rank == 0 else None
    journal = Journal(_identity(points, options, group), keep, resume, checkpoint_seconds, device)
    pieces = Pieces(journal, ask=ask if group.size == 1 else lambda: group.first_says(ask(), ASKED))
    try:
        candidates = _candidates(run, training, options, pieces, device, group)
        table = Table(options, candidates, points, sample_weights, held_out, group, pieces.under("report"))
        return table.report(device=device, elapsed_seconds=journal.elapsed_seconds)
    except Interrupted as asked:
        return interrupted(asked.outcome)


def _candidates(
    run: _Run,
    training: Weighted,
    options: FitOptions,
    pieces: Pieces,
    device: str,
    group: Group,
) -> list[Candidate]:
    """Every candidate, fitted to the training points and their weights.

    Raises:
        Interrupted: by whoever watches.
    """
    standardized: dict[bool, StandardizedPoints] = {}
    candidates: list[Candidate] = []
    for n_components in options.n_components:
        for covariance_type in options.covariance_type:
            common = FAMILIES[covariance_type].common_scale
            if common not in standardized:
                standardized[common] = standardize(
                    *training, common_scale=common, dtype=DTYPES[options.dtype], device=device, group=group
                )
            data = standardized[common]
            seen, name = run.watch_on(data, n_components, covariance_type), str(len(candidates))
            candidates.append(run_candidate(data, n_components, covariance_type, options, seen, pieces, name))
            if run.interrupted is not None:
                raise Interrupted(run.interrupted)
            run.restarts_done += options.n_init
    return candidates


class _Run:
    """What the candidates of one fit share: who watches, and whether they asked to stop."""

    def __init__(self, options: FitOptions, watch: Watcher | None, group: Group) -> None:
        self.restarts_done = 0
        self.interrupted: str | None = None
        self._watch = watch
        self._group = group
        self._max_steps = options.max_steps
        self._n_candidates = len(options.n_components) * len(options.covariance_type)
        self._n_init = options.n_init * self._n_candidates
        self._best = -math.inf

    def watch_on(self, data: StandardizedPoints, n_components: int, covariance_type: str) -> Watch:
        """The restarts' view of the watcher: objectives in standardised coordinates become data units."""
        watch = self._watch
        if watch is None and self._group.size == 1:
            return lambda _sight: None
        jacobian, total, before = data.log_jacobian(), data.total_weight, self._best

        def on_step(sight: Sight) -> str | None:
            # What a sample of the points promised is forgotten once all of them are looked at.
            self._best = max(before, (sight.best + jacobian) * total)
            progress = Progress(
                sight.step,
                self._max_steps,
                self.restarts_done + sight.n_ended,
                self._n_init,
                self._best,
                {restart: (value + jacobian) * total for restart, value in sight.current.items()},
                self._n_candidates,
                n_components,
                covariance_type,
                sight.rehearsed,
            )
            asked = None if watch is None else watch(progress)
            self.interrupted = asked if self._group.size == 1 else self._group.first_says(asked, ASKED)
            return self.interrupted

        return on_step


def _identity(points: Points, options: FitOptions, group: Group) -> list[object]:
    """What tells this fit from another: the shape and a sum of its points, and its options.

    The sum is one of bits, as whole numbers, which does not depend on how many ranks take it.
    """
    start = {key: value for key, value in options.initialization.items() if key != "mixture"}
    plain = {**vars(options), "optimizer": dict(options.optimizer), "initialization": start}
    total = sum(int(points[:, columns].double().view(torch.int64).sum()) for columns in blocks_of(points))
    halves = torch.tensor([total & 0xFFFFFFFF, total >> 32 & 0xFFFFFFFF], dtype=torch.float64)
    low, high = (int(half) for half in group.summed(halves)[0].tolist())
    n_samples = Shards.of(group, points.shape[1]).n_samples
    return [points.shape[0], n_samples, (low + (high << 32)) & 0xFFFFFFFFFFFFFFFF, plain]


Weighted = tuple[Points, Tensor | None]


def _checked(points: Points, weights: Tensor | None, options: FitOptions, group: Group) -> Weighted:
    """The points that count, with their weights; or the reason why there is nothing to fit."""
    shape = tuple(points.shape)
    if len(shape) != 2 or shape[0] < 1 or Shards.of(group, shape[1]).n_samples == 0:
        raise InvalidFit(f"points has shape {shape}; it must be (D, N), neither zero", ("dataset",))
    _refuse_where(not _finite(points), "points must be finite; there is a NaN or an infinity", (), group)
    if weights is not None:
        points, weights = _counting(points, weights, group)
    n_samples, most = Shards.of(group, points.shape[1]).n_samples, max(options.n_components)
    kept = n_samples - _n_held_out(n_samples, options)
    if kept < most:
        raise InvalidFit(
            f"{kept} points cannot hold {most} components; ask for at most {kept} or give more points",
            ("n_components",),
        )
    return points, weights


def _finite(points: Points) -> bool:
    # A NaN or an infinity shows in the extremes, which need no copy of the points.
    return points.shape[1] == 0 or all(bool(torch.isfinite(end).all()) for end in extremes(points))


def _counting(points: Points, weights: Tensor, group: Group) -> Weighted:
    """The points whose weights are not zero, with these weights."""
    place = ("weights",)
    wrong = f"weights has shape {tuple(weights.shape)}; there are {points.shape[1]} points"
    _refuse_where(weights.shape != points.shape[1:], wrong, place, group)
    bad = not bool(torch.isfinite(weights).all()) or bool((weights < 0).any())
    _refuse_where(bad, "weights must be finite numbers, none negative", place, group)
    counted = weights > 0
    if Shards.of(group, int(counted.sum())).n_samples == 0:
        raise InvalidFit("all weights are zero: no point counts; give some a weight", ("dataset", *place))
    if bool(counted.all()):
        return points, weights
    return only(points, counted.nonzero()[:, 0]), weights[counted]


def _refuse_where(wrong: bool, message: str, place: tuple[str, ...], group: Group) -> None:
    """Refuses the fit on all ranks where something is wrong on one."""
    if bool(group.summed(torch.tensor([float(wrong)], dtype=torch.float64))[0]):
        raise InvalidFit(message, ("dataset", *place))


def _n_held_out(n_samples: int, options: FitOptions) -> int:
    if options.criterion != "held_out":
        return 0
    return max(1, round(options.held_out_fraction * n_samples))


def _split(
    points: Points, weights: Tensor | None, options: FitOptions, group: Group
) -> tuple[Weighted, Weighted | None]:
    """The points to learn from, and those to judge by when the criterion is held_out."""
    shards = Shards.of(group, points.shape[1])
    n_held_out = _n_held_out(shards.n_samples, options)
    if n_held_out == 0:
        return (points, weights), None
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(shards.n_samples, generator=generator)

    def part(index: Tensor) -> Weighted:
        own = shards.own(index).sort().values
        return only(points, own), None if weights is None else weights[own]

    return part(order[n_held_out:]), part(order[:n_held_out])
