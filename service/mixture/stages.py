"""Restarts in two stages where there are many points: all on a sample, then the best few on everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from service.mixture.components import Components, concatenate
from service.mixture.journal import Journal, RestartEnd
from service.mixture.optimizers import Objective, Optimizer
from service.mixture.restarts import Sight, Watch, run_restarts
from service.mixture.statistics import StatisticsPass

# A sample of so many points, and so many for each free parameter, shows which optimum is the best.
SAMPLE_POINTS, SAMPLE_POINTS_PER_PARAMETER = 5_000, 30
# Below this many times the sample, looking at all points from the start costs little more.
WORTHWHILE = 4
# On a sample the likelihood is only known to its noise; a tolerance far below that is lost work.
SAMPLE_TOLERANCE = 1e-5
# So many of the optima found on the sample go on to all points.
FINALISTS = 2


def sample_size(objective: Objective) -> int | None:
    """How many points the first stage looks at, or None when there are too few for two stages."""
    data = objective.statistics.data
    n_parameters = objective.family.n_parameters(objective.n_components, data.n_features)
    size = max(SAMPLE_POINTS, SAMPLE_POINTS_PER_PARAMETER * n_parameters)
    return size if data.n_samples >= WORTHWHILE * size else None


def run_in_stages(
    objective: Objective,
    optimizer: Optimizer,
    starts: Callable[[], Components],
    generators: list[torch.Generator],
    *,
    tolerance: float,
    max_steps: int,
    watch: Watch,
    journal: Journal,
    name: str,
) -> list[RestartEnd]:
    """The ends of all restarts: of the finalists on all points, of the others where the sample left them.

    A restart that found a finalist's optimum on the sample shares its end; one that fell behind is given no
    more steps and ends with max_steps_reached.
    """
    size = sample_size(objective)
    n_restarts = len(generators)

    def run(
        part: str, on: Objective, start: Callable[[], Components], within: float, watched: Watch
    ) -> list[RestartEnd]:
        return run_restarts(
            on,
            optimizer,
            start,
            generators,
            tolerance=within,
            max_steps=max_steps,
            watch=watched,
            journal=journal,
            name=f"{name}/{part}",
        )

    if size is None or n_restarts == 1 or tolerance == 0.0 or optimizer.passes_per_step != 1.0:
        return run("all", objective, starts, tolerance, watch)
    sampled = _sampled(objective, size, generators[0])
    loose = max(tolerance, SAMPLE_TOLERANCE)
    rehearsed = run("sample", sampled, starts, loose, lambda sight: watch(replace(sight, n_ended=0)))
    share = size / objective.statistics.data.n_samples
    groups = _groups(sampled, rehearsed, loose)
    chosen = groups[:FINALISTS]
    waiting = n_restarts - len(chosen)
    finals: list[RestartEnd] = []
    if chosen:
        finalists = concatenate([rehearsed[group[0]].components for group in chosen])
        before = max(end.n_steps for end in rehearsed)

        def watch_finals(sight: Sight) -> str | None:
            current = {chosen[place][0]: value for place, value in sight.current.items()}
            ended = waiting + sight.n_ended
            return watch(replace(sight, n_ended=ended, current=current, rehearsed=before))

        finals = run("finals", objective, lambda: finalists, tolerance, watch_finals)
    return _combined(rehearsed, chosen, finals, share)


def _combined(
    rehearsed: list[RestartEnd], chosen: list[list[int]], finals: list[RestartEnd], share: float
) -> list[RestartEnd]:
    """The ends on the sample, replaced by those on all points for the restarts of the chosen groups."""
    ends = [_left_behind(end, share) for end in rehearsed]
    for group, final in zip(chosen, finals, strict=True):
        for restart in group:
            before = rehearsed[restart]
            ends[restart] = replace(
                final,
                n_steps=final.n_steps + before.n_steps,
                n_passes=final.n_passes + share * before.n_passes,
            )
    return ends


def _sampled(objective: Objective, size: int, generator: torch.Generator) -> Objective:
    """The same objective on a sample of the points, drawn by their weights."""
    data = objective.statistics.data
    sample = data.sample(size, torch.Generator().manual_seed(generator.initial_seed()))
    regularization = objective.statistics.regularization
    passes = StatisticsPass(
        sample,
        diagonal=objective.family.diagonal,
        radial=objective.family.radial,
        regularization=regularization,
        error_bound=objective.statistics.error_bound,
    )
    return replace(objective, statistics=passes)


def _groups(objective: Objective, ends: list[RestartEnd], tolerance: float) -> list[list[int]]:
    """Restarts that found the same optimum on the sample, best optimum first; collapsed ones in none.

    A component at the floor of a sample may be nothing but a coincidence of it; such optima come last.
    """
    alive = [i for i, end in enumerate(ends) if end.outcome in ("converged", "max_steps_reached")]
    if not alive:
        return []
    components = concatenate([ends[i].components for i in alive])
    statistics = objective.statistics
    means = (statistics(components).log_likelihood / statistics.data.total_weight).tolist()
    floored = (components.smallest_eigenvalues() <= 10 * statistics.regularization).tolist()
    order = sorted(range(len(alive)), key=lambda row: (floored[row], -means[row]))
    groups: list[list[int]] = []
    best = 0.0
    for row in order:
        if groups and abs(means[row] - best) <= 3 * tolerance * max(1.0, abs(best)):
            groups[-1].append(alive[row])
        else:
            groups.append([alive[row]])
            best = means[row]
    return groups


def _left_behind(end: RestartEnd, share: float) -> RestartEnd:
    outcome = "max_steps_reached" if end.outcome == "converged" else end.outcome
    return replace(end, outcome=outcome, n_passes=share * end.n_passes)
