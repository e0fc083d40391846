"""Restarts in stages: a few of the best starts, on a sample where there are many points, then on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from service.mixture.components import Components, concatenate
from service.mixture.journal import Journal, RestartEnd
from service.mixture.optimizers import Objective, Optimizer
from service.mixture.progress import ASKED
from service.mixture.restarts import Sight, Watch, run_restarts
from service.mixture.screening import behind_best, log_densities_somewhere
from service.mixture.starts import Starts
from service.mixture.statistics import StatisticsPass

# A sample of so many points, and so many for each free parameter, shows which optimum is the best.
SAMPLE_POINTS, SAMPLE_POINTS_PER_PARAMETER = 5_000, 10
# Below this many times the sample, looking at all points from the start costs little more.
WORTHWHILE = 4
# On a sample the likelihood is only known to its noise; a tolerance far below that is lost work.
SAMPLE_TOLERANCE = 1e-5
# So many of the mixtures that starts were led to go on to the sample, or where there is none, to all points;
# and so many of the optima found on the sample go on to all points.
CONTENDERS, FINALISTS = 4, 2
# An eigenvalue within this factor of the regularisation owes more to it than to the points.
FLOOR_FACTOR, SMALLEST_FLOOR = 3.0, 1e-12
# A restart that has run its course.
FINISHED = ("converged", "max_steps_reached")


def sample_size(objective: Objective) -> int | None:
    """How many points the first stage looks at, or None when there are too few for two stages."""
    data = objective.statistics.data
    n_parameters = objective.family.n_parameters(objective.n_components, data.n_features)
    size = max(SAMPLE_POINTS, SAMPLE_POINTS_PER_PARAMETER * n_parameters)
    return size if data.n_samples >= WORTHWHILE * size else None


class Stages:
    """The stages that the restarts of one candidate run through.

    Args:
        objective: on all points.
        optimizer: for every stage.
        generators: of the restarts.
        tolerance: of the stopping rule.
        max_steps: of each stage.
        watch: of the whole.
        journal: keeps what each stage came to.
        name: of the candidate in the journal.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        generators: list[torch.Generator],
        *,
        tolerance: float,
        max_steps: int,
        watch: Watch,
        journal: Journal,
        name: str,
    ) -> None:
        self._objective = objective
        self._optimizer = optimizer
        self._generators = generators
        self._tolerance = tolerance
        self._max_steps = max_steps
        self._watch = watch
        self._journal = journal
        self._name = name

    def run(self, starts: Callable[[], Starts]) -> list[RestartEnd]:
        """The ends of all restarts: of the finalists on all points, of the others where they were left.

        Restarts that begin at the same mixture, or find the same optimum on the sample, run as one and share
        its end. One that fell behind is given no more steps and ends with left_behind, unless all that went
        on turn out to be spurious or to collapse: then the others have their turn.
        """
        n_restarts = len(self._generators)
        if n_restarts == 1 or self._tolerance == 0.0 or self._optimizer.passes_per_step != 1.0:
            return self._stage(
                "all", self._objective, lambda: starts().components, self._tolerance, self._watch
            )
        begun = starts()
        ends = [
            RestartEnd(begun.components.rows(slice(restart, restart + 1)), "left_behind", 0, 0.0)
            for restart in range(n_restarts)
        ]
        groups, contenders = begun.groups, begun.groups
        if begun.compared:
            contenders = [
                group for place, group in enumerate(groups) if place < 2 or group[0] not in begun.behind
            ][:CONTENDERS]
        size = sample_size(self._objective)
        if size is not None:
            groups, contenders = self._rehearsal(ends, groups, contenders, size)
        self._heat("finals", ends, contenders, race=size is not None or begun.compared)
        if not self._settled(ends, contenders):
            alive = any(ends[group[0]].outcome in FINISHED for group in groups)
            others = [
                group
                for group in groups
                if ends[group[0]].outcome == "left_behind" and not (alive and group[0] in begun.floored)
            ]
            self._heat("others", ends, others, race=False)
        return ends

    def _stage(
        self,
        part: str,
        on: Objective,
        start: Callable[[], Components],
        tolerance: float,
        watch: Watch,
        *,
        race: bool = False,
    ) -> list[RestartEnd]:
        return run_restarts(
            on,
            self._optimizer,
            start,
            self._generators,
            tolerance=tolerance,
            max_steps=self._max_steps,
            watch=watch,
            journal=self._journal,
            name=f"{self._name}/{part}",
            race=race,
        )

    def _seen(self, groups: list[list[int]], sight: Sight) -> Sight:
        """What is seen of a stage of these groups, each under the number of its first restart."""
        return replace(sight, current={groups[place][0]: value for place, value in sight.current.items()})

    def _rehearsal(
        self, ends: list[RestartEnd], groups: list[list[int]], contenders: list[list[int]], size: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Lets the contenders find optima on a sample; all groups as they are then, and the finalists."""
        sampled = _sampled(self._objective, size, self._generators[0])
        loose = max(self._tolerance, SAMPLE_TOLERANCE)

        def watch(sight: Sight) -> str | None:
            return self._watch(replace(self._seen(contenders, sight), n_ended=0))

        rehearsed = self._stage("sample", sampled, lambda: _firsts(ends, contenders), loose, watch, race=True)
        share = size / self._objective.statistics.data.n_samples
        _share(ends, contenders, [_left_behind(end, share) for end in rehearsed])
        joined, behind = _groups(sampled, rehearsed, contenders, loose)
        finalists = [group for group, hopeless in zip(joined, behind, strict=True) if not hopeless]
        return joined + [group for group in groups if group not in contenders], finalists[:FINALISTS]

    def _heat(self, part: str, ends: list[RestartEnd], groups: list[list[int]], *, race: bool) -> None:
        """Runs these groups on all points from where they stand."""
        if not groups or any(end.outcome in ASKED for end in ends):
            return
        waiting = len(self._generators) - len(groups)
        before = max(ends[group[0]].n_steps for group in groups)

        def watch(sight: Sight) -> str | None:
            seen = self._seen(groups, sight)
            return self._watch(replace(seen, n_ended=waiting + sight.n_ended, rehearsed=before))

        finals = self._stage(
            part, self._objective, lambda: _firsts(ends, groups), self._tolerance, watch, race=race
        )
        _share(ends, groups, finals)

    def _settled(self, ends: list[RestartEnd], groups: list[list[int]]) -> bool:
        """Whether one of these groups has come to an honest optimum."""
        floor = spurious_floor(self._objective.statistics.regularization)
        for group in groups:
            end = ends[group[0]]
            if end.outcome in FINISHED and float(end.components.smallest_eigenvalues()) > floor:
                return True
        return False


def spurious_floor(regularization: float) -> float:
    """The smallest eigenvalue at which a component still owes more to the points than to regularisation."""
    return max(FLOOR_FACTOR * regularization, SMALLEST_FLOOR)


def _firsts(ends: list[RestartEnd], groups: list[list[int]]) -> Components:
    """The mixture at which each group stands."""
    return concatenate([ends[group[0]].components for group in groups])


def _share(ends: list[RestartEnd], groups: list[list[int]], reached: list[RestartEnd]) -> None:
    """Gives every restart of a group the end that the group has reached, after the way it came."""
    for group, end in zip(groups, reached, strict=True):
        for restart in group:
            before = ends[restart]
            ends[restart] = replace(
                end, n_steps=end.n_steps + before.n_steps, n_passes=end.n_passes + before.n_passes
            )


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


def _groups(
    objective: Objective, ends: list[RestartEnd], before: list[list[int]], tolerance: float
) -> tuple[list[list[int]], list[bool]]:
    """Groups joined that found the same optimum on the sample, best optimum first; collapsed ones in none.

    Beside them, which are behind the best by more than the choice of the sample explains.

    A component at the floor of a sample may be nothing but a coincidence of it; such optima come last.
    """
    alive = [i for i, end in enumerate(ends) if end.outcome in (*FINISHED, "left_behind")]
    if not alive:
        return [], []
    components = concatenate([ends[i].components for i in alive])
    statistics = objective.statistics
    means = (statistics(components).log_likelihood / statistics.data.total_weight).tolist()
    floored = (components.smallest_eigenvalues() <= 10 * statistics.regularization).tolist()
    order = sorted(range(len(alive)), key=lambda row: (floored[row], -means[row]))
    densities = log_densities_somewhere(statistics, components)
    hopeless = behind_best(densities, means, floored, statistics.data.n_samples)
    groups: list[list[int]] = []
    behind: list[bool] = []
    best = 0.0
    for row in order:
        if groups and abs(means[row] - best) <= 3 * tolerance * max(1.0, abs(best)):
            groups[-1] += before[alive[row]]
        else:
            groups.append(list(before[alive[row]]))
            behind.append(hopeless[row])
            best = means[row]
    return groups, behind


def _left_behind(end: RestartEnd, share: float) -> RestartEnd:
    outcome = "left_behind" if end.outcome in ("converged", "max_steps_reached") else end.outcome
    return replace(end, outcome=outcome, n_passes=share * end.n_passes)
