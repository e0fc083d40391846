"""The last look of a fit at all of its points: piece by piece, to the same numbers on any number of ranks."""

from __future__ import annotations

import pytest
import torch

from service.mixture import FitOptions, fit, scores
from tests.mixture.problems import gold_points
from tests.mixture.test_checkpoints import same

OPTIONS = FitOptions((3,), ("full", "diag"), n_init=2, max_steps=5, criterion="held_out")
N_MEANS = 3 * 2
# Of the two candidates, on all points and on those held out.
LOOKED_AT = 2 * (300 // 30 + 30 // 30)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has each piece be a chunk of 30 points; returns where those begin that are gone through."""
    begun: list[int] = []
    sums = scores._sums_of_chunk

    def noted(mixture, points, weights, columns):
        begun.append(columns.start)
        return sums(mixture, points, weights, columns)

    monkeypatch.setattr(scores.density, "CHUNK_NUMBERS", 30 * N_MEANS)
    monkeypatch.setattr(scores, "CHUNKS_IN_A_PIECE", 1)
    monkeypatch.setattr(scores, "_sums_of_chunk", noted)
    return begun


def test_a_fit_lost_in_its_last_look_loses_one_piece_of_it(looked_at: list[int]) -> None:
    written: list[tuple[int, bytes]] = []
    report = fit(
        gold_points(300),
        OPTIONS,
        checkpoint=lambda checkpoint: written.append((len(looked_at), checkpoint)),
        checkpoint_seconds=0.0,
    )
    assert len(looked_at) == LOOKED_AT
    last = [(n_before, checkpoint) for n_before, checkpoint in written if n_before > 0]
    assert len(last) == LOOKED_AT - 1
    for n_before, checkpoint in last[::5]:
        looked_at.clear()
        same(fit(gold_points(300), OPTIONS, resume=checkpoint), report)
        assert len(looked_at) == LOOKED_AT - n_before


def test_a_fit_is_asked_to_end_in_its_last_look_too(looked_at: list[int]) -> None:
    report = fit(gold_points(300), OPTIONS, ask=lambda: "cancelled" if len(looked_at) > 3 else None)
    assert (report.outcome, report.mixture, len(looked_at)) == ("cancelled", None, 4)


def test_pieces_change_nothing_but_the_order_of_a_sum(looked_at: list[int]) -> None:
    in_pieces = fit(gold_points(300), OPTIONS)
    assert len(looked_at) == LOOKED_AT
    with pytest.MonkeyPatch.context() as back:
        back.setattr(scores.density, "CHUNK_NUMBERS", 1 << 20)
        whole = fit(gold_points(300), OPTIONS)
    for name in ("log_likelihood", "bic", "icl", "held_out_log_likelihood"):
        assert in_pieces.result[name] == pytest.approx(whole.result[name], rel=1e-12)
    assert in_pieces.mixture is not None
    assert whole.mixture is not None
    assert torch.equal(in_pieces.mixture.means, whole.mixture.means)
