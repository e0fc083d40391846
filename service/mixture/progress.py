"""What a running fit tells the one who watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Asked = Literal["cancelled", "timed_out", "released"]
"""What a watcher may answer to end a fit; one that is released is to go on elsewhere from where it stands."""
ASKED: tuple[str, ...] = get_args(Asked)
Outcome = Literal["converged", "max_steps_reached", "collapsed", "non_finite"] | Asked


@dataclass(frozen=True)
class Progress:
    """Where a fit stands.

    Attributes:
        step: of the restarts now running.
        max_steps: at which they end.
        restarts_done: over all candidates.
        n_init: restarts of all candidates together.
        log_likelihood: the best so far, total, in data units, nats.
        restart_log_likelihoods: the current one of every running restart, as ``log_likelihood``, by the
            restart's number within its candidate.
        n_candidates: pairs of a number of components and a family, in all.
        n_components: of the candidate now running.
        covariance_type: of the candidate now running.
        rehearsed: steps that this candidate's restarts did before, on a sample of the points.
    """

    step: int
    max_steps: int
    restarts_done: int
    n_init: int
    log_likelihood: float
    restart_log_likelihoods: Mapping[int, float]
    n_candidates: int
    n_components: int
    covariance_type: str
    rehearsed: int = 0
