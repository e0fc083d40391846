"""The log-likelihood of every restart by step: noted while a fit runs, in as few numbers as a curve needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from service.mixture.progress import Progress

MOST_RESTARTS = 512
"""So many restarts of a fit are traced, shared out evenly among its candidates, at least one of each."""

# About a hundred steps of the first thousand, two hundred of the first hundred thousand.
_PER_E_FOLD = 20
_DIGITS = 9

Key = tuple[int, str, int]


class Traces:
    """Notes a fit's progress, step by step, and hands out what is new as JSON would have it.

    Every step is noted at first, and later each that is a twentieth further than the last, so that a trace
    stays short however long the fit; the last step of a restart is noted in any case.
    """

    def __init__(self) -> None:
        self._new: dict[Key, list[tuple[int, float]]] = {}
        self._unnoted: dict[Key, tuple[int, float]] = {}

    def add(self, progress: Progress) -> None:
        """Notes one step of the restarts that run."""
        step = progress.rehearsed + progress.step
        noted = is_noted(step)
        most = max(1, MOST_RESTARTS // progress.n_candidates)
        for restart, value in progress.restart_log_likelihoods.items():
            if restart >= most:
                continue
            key = (progress.n_components, progress.covariance_type, restart)
            if noted:
                self._new.setdefault(key, []).append((step, value))
                self._unnoted.pop(key, None)
            else:
                self._unnoted[key] = (step, value)

    def take(self, *, last: bool = False) -> list[dict[str, Any]]:
        """What was noted since it was last taken; the last time with where each restart ended.

        Returns:
            One object per restart with anything new: n_components, covariance_type, restart, and steps with
            their log_likelihoods (total, nats, to nine digits), both of the same length.
        """
        if last:
            for key, point in self._unnoted.items():
                self._new.setdefault(key, []).append(point)
        new, self._new = self._new, {}
        return [_described(key, points) for key, points in new.items()]


def is_noted(step: int) -> bool:
    """Whether a step, counted from 1, has its place in a trace."""
    return step == 1 or int(_PER_E_FOLD * math.log(step)) != int(_PER_E_FOLD * math.log(step - 1))


def joined(parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole traces from the parts taken one after another, by candidate and restart, steps in order.

    A step told twice, as by a fit that went on from a checkpoint, counts as told last.
    """
    whole: dict[Key, dict[int, float]] = {}
    for part in parts:
        key = (part["n_components"], part["covariance_type"], part["restart"])
        whole.setdefault(key, {}).update(zip(part["steps"], part["log_likelihoods"], strict=True))
    return [_described(key, sorted(points.items())) for key, points in whole.items()]


def _described(key: Key, points: list[tuple[int, float]]) -> dict[str, Any]:
    n_components, covariance_type, restart = key
    return {
        "n_components": n_components,
        "covariance_type": covariance_type,
        "restart": restart,
        "steps": [step for step, _ in points],
        "log_likelihoods": [float(f"{value:.{_DIGITS}g}") for _, value in points],
    }
