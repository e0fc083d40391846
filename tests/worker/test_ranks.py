"""A fit on several ranks, as real processes: the same numbers, however many there are."""

import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from service.mixture import ALONE
from tests.worker import gang_of_three
from tests.worker.gang_of_three import CASES, numbers_of

Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of three processes has found."""
    folder = tmp_path_factory.mktemp("gang")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")  # what listens does so at 127.0.0.1
        patch.setenv("PYTHONPATH", os.getcwd())
        torch.multiprocessing.spawn(gang_of_three.main, (folder,), nprocs=3)
    return [pickle.loads((folder / f"found{rank}").read_bytes()) for rank in range(3)]


def _assert_same(found: Any, expected: Any, rtol: float) -> None:
    """All numbers within a relative error, everything else equal."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected.keys() - {"elapsed_seconds"}:
            _assert_same(found[name], expected[name], rtol)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            _assert_same(one, other, rtol)
    elif isinstance(expected, float | np.ndarray):
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    else:
        assert found == expected


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_ranks_come_to_the_numbers_of_one_process(found: Found, name: str, size: int) -> None:
    expected = numbers_of(CASES[name], ALONE)
    for rank in range(size):
        numbers = found[rank][f"{name}/{size}"]
        _assert_same(numbers, expected, 1e-9 if "float32" not in name else 1e-4)
        for parameter in ("weights", "means", "covariances"):  # to the last bit: or ranks would lose step
            np.testing.assert_array_equal(numbers[parameter], found[0][f"{name}/{size}"][parameter])


def test_recovery_counts_the_points_of_all_ranks(found: Found) -> None:
    for size in (2, 3):
        for rank in range(size):
            assert found[rank][f"recovery/{size}"] == found[0]["recovery/1"]


def test_what_rank_0_hears_ends_the_fit_on_all(found: Found) -> None:
    for size in (1, 2, 3):
        for rank in range(size):
            assert found[rank][f"stops/{size}"] == ["cancelled", "timed_out", "released"]


def test_what_is_wrong_on_one_rank_is_refused_on_all(found: Found) -> None:
    for size in (1, 2, 3):
        for rank in range(size):
            infinite, negative, none = found[rank][f"refusals/{size}"]
            assert "finite" in infinite
            assert "negative" in negative
            assert "all weights are zero" in none


def test_more_ranks_go_on_from_the_checkpoint_of_fewer(found: Found) -> None:
    for rank in range(3):
        _assert_same(found[rank]["checkpointed/3"], found[0]["checkpointed/1"], 1e-9)


def test_ranks_with_other_parameters_are_found_out(found: Found) -> None:
    said = [found[rank]["out of step"] for rank in range(2)]
    assert any("other parameters" in one for one in said)


def test_the_loss_of_a_rank_is_seen_by_the_others(found: Found) -> None:
    for rank in range(2):
        assert "has lost another" in found[rank]["left alone"]


def test_threads_that_sum_take_the_processor_from_none_and_no_others_are_like_them(found: Found) -> None:
    for rank in range(2):
        before, after = found[rank]["policies"]
        assert set(before.values()) == {os.SCHED_OTHER}
        begun = {after[thread] for thread in after if thread not in before}
        assert begun == {os.SCHED_BATCH}
        assert {after[thread] for thread in before if thread in after} == {os.SCHED_OTHER}
