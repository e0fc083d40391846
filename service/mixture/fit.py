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
from service.mixture.progress import Progress
from service.mixture.report import FitReport, Table, interrupted
from service.mixture.restarts import Sight, Watch
from service.mixture.standardization import StandardizedPoints, standardize

Watcher = Callable[[Progress], str | None]


def fit(
    points: Points,
    options: FitOptions,
    *,
    sample_weights: Tensor | None = None,
    device: str = "cpu",
    watch: Watcher | None = None,
    checkpoint: Callable[[bytes], None] | None = None,
    resume: bytes | None = None,
    checkpoint_seconds: float = 5.0,
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
        checkpoint: called now and then with bytes from which another process can go on.
        resume: the last such bytes of the same fit, to go on to the same numbers.
        checkpoint_seconds: the least time between two checkpoints.

    Returns:
        The report; a collapse is an outcome in it.

    Raises:
        InvalidFit: for what cannot be fitted, saying what to change.
    """
    options.check()
    points, sample_weights = _checked(points, sample_weights, options)
    training, held_out = _split(points, sample_weights, options)
    run = _Run(options, watch)
    journal = Journal(_identity(points, options), checkpoint, resume, checkpoint_seconds, device)
    standardized: dict[bool, StandardizedPoints] = {}
    candidates: list[Candidate] = []
    for n_components in options.n_components:
        for covariance_type in options.covariance_type:
            common = FAMILIES[covariance_type].common_scale
            if common not in standardized:
                standardized[common] = standardize(
                    *training, common_scale=common, dtype=DTYPES[options.dtype], device=device
                )
            data = standardized[common]
            candidate = run_candidate(
                data,
                n_components,
                covariance_type,
                options,
                run.watch_on(data, n_components, covariance_type),
                journal,
                str(len(candidates)),
            )
            if run.interrupted is not None:
                return interrupted(run.interrupted)
            candidates.append(candidate)
            run.restarts_done += options.n_init
    table = Table(options, candidates, points, sample_weights, held_out)
    return table.report(device=device, elapsed_seconds=journal.elapsed_seconds)


class _Run:
    """What the candidates of one fit share: who watches, and whether they asked to stop."""

    def __init__(self, options: FitOptions, watch: Watcher | None) -> None:
        self.restarts_done = 0
        self.interrupted: str | None = None
        self._watch = watch
        self._max_steps = options.max_steps
        self._n_candidates = len(options.n_components) * len(options.covariance_type)
        self._n_init = options.n_init * self._n_candidates
        self._best = -math.inf

    def watch_on(self, data: StandardizedPoints, n_components: int, covariance_type: str) -> Watch:
        """The restarts' view of the watcher: objectives in standardised coordinates become data units."""
        watch = self._watch
        if watch is None:
            return lambda _sight: None
        jacobian, total, before = data.log_jacobian(), data.total_weight, self._best

        def on_step(sight: Sight) -> str | None:
            # What a sample of the points promised is forgotten once all of them are looked at.
            self._best = max(before, (sight.best + jacobian) * total)
            self.interrupted = watch(
                Progress(
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
            )
            return self.interrupted

        return on_step


def _identity(points: Points, options: FitOptions) -> list[object]:
    """What tells this fit from another: the shape and a sum of its points, and its options."""
    start = {key: value for key, value in options.initialization.items() if key != "mixture"}
    plain = {**vars(options), "optimizer": dict(options.optimizer), "initialization": start}
    total = sum(float(points[:, columns].double().sum()) for columns in blocks_of(points))
    return [*points.shape, total, plain]


Weighted = tuple[Points, Tensor | None]


def _checked(points: Points, weights: Tensor | None, options: FitOptions) -> Weighted:
    """The points that count, with their weights; or the reason why there is nothing to fit."""
    if points.ndim != 2 or points.shape[0] < 1 or points.shape[1] < 1:
        raise InvalidFit(
            f"points has shape {tuple(points.shape)}; it must be (D, N), neither zero", ("dataset",)
        )
    # A NaN or an infinity shows in the extremes, which need no copy of the points.
    if not all(bool(torch.isfinite(end).all()) for end in extremes(points)):
        raise InvalidFit("points must be finite; there is a NaN or an infinity", ("dataset",))
    if weights is not None:
        if weights.shape != points.shape[1:]:
            raise InvalidFit(
                f"weights has shape {tuple(weights.shape)}; there are {points.shape[1]} points",
                ("dataset", "weights"),
            )
        if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()):
            raise InvalidFit("weights must be finite numbers, none negative", ("dataset", "weights"))
        counted = weights > 0
        if not bool(counted.any()):
            raise InvalidFit(
                "all weights are zero: no point counts; give some a weight", ("dataset", "weights")
            )
        if not bool(counted.all()):
            points, weights = only(points, counted.nonzero()[:, 0]), weights[counted]
    n_samples, most = points.shape[1], max(options.n_components)
    kept = n_samples - _n_held_out(n_samples, options)
    if kept < most:
        raise InvalidFit(
            f"{kept} points cannot hold {most} components; ask for at most {kept} or give more points",
            ("n_components",),
        )
    return points, weights


def _n_held_out(n_samples: int, options: FitOptions) -> int:
    if options.criterion != "held_out":
        return 0
    return max(1, round(options.held_out_fraction * n_samples))


def _split(points: Points, weights: Tensor | None, options: FitOptions) -> tuple[Weighted, Weighted | None]:
    """The points to learn from, and those to judge by when the criterion is held_out."""
    n_held_out = _n_held_out(points.shape[1], options)
    if n_held_out == 0:
        return (points, weights), None
    generator = torch.Generator().manual_seed(options.seed)
    order = torch.randperm(points.shape[1], generator=generator)

    def part(index: Tensor) -> Weighted:
        return only(points, index), None if weights is None else weights[index]

    return part(order[n_held_out:].sort().values), part(order[:n_held_out].sort().values)
