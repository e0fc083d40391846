"""The fitter without its process: what it hands over, and which errors end it."""

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from service.settings import Settings
from service.storage.dataset_store import DatasetStore
from service.storage.queue import Claim
from service.worker import fitting, reporting
from service.worker.fitter_process import FitterProcess
from service.worker.messages import Checkpointed, Failed, Finished, Start

CLAIM = Claim("fit", "local", "tok", 1, {}, None, None, "", None, None, None, 1, 1)


@pytest.fixture
def reporter() -> Any:
    ours, theirs = multiprocessing.Pipe()
    inbox: Any = None
    yield reporting.Reporter(theirs, inbox), ours
    theirs.close()
    ours.close()


def test_a_checkpoint_is_handed_over_in_parts(reporter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told, supervisor = reporter
    monkeypatch.setattr(reporting, "PART_BYTES", 3)
    for state in (b"abc", b"abcdefgh"):
        told.keep(state)
    assert [supervisor.recv() for _ in range(4)] == [
        Checkpointed(0, b"abc", last=True),
        Checkpointed(0, b"abc", last=False),
        Checkpointed(1, b"def", last=False),
        Checkpointed(2, b"gh", last=True),
    ]
    assert not supervisor.poll()


def _ended(store: DatasetStore, reporter: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(fitting, "run", fail)
    return reporting.finished(Start(CLAIM, 1.0), store, "cpu", reporter[0]).ended


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_an_error_of_the_device_ends_the_process(
    store: DatasetStore, reporter: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)):
        _ended(store, reporter, monkeypatch, error)


def test_any_other_error_ends_the_fit_alone(
    store: DatasetStore, reporter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = _ended(store, reporter, monkeypatch, RuntimeError("a shape does not fit"))
    assert isinstance(ended, Failed)
    assert ended.code == "INTERNAL"


@pytest.mark.parametrize("n_ranks", [1, 2])
def test_what_a_fitter_logs_has_the_ids_of_its_fit_and_worker(
    store: DatasetStore, tmp_path: Path, capfd: pytest.CaptureFixture[str], n_ranks: int
) -> None:
    settings = Settings(data_dir=tmp_path, log_format="json")
    process = FitterProcess("cpu", (tmp_path / "datasets", "", 1), n_devices=2, settings=settings)
    try:
        claim = replace(CLAIM, request={"device": "cpu", "devices": n_ranks})
        process.start(Start(claim, 1.0, worker_id="wrk_1"))  # there are no such points
        while not isinstance(finished := process.listen(60), Finished):
            assert finished is not None
    finally:
        process.kill()
    assert isinstance(finished.ended, Failed)
    assert finished.ended.code == "INTERNAL"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert 1 <= len(lines) <= n_ranks  # the first to fail may be the end of the others
    assert {line.get("rank") for line in lines} <= ({0, 1} if n_ranks == 2 else {None})
    for line in lines:
        assert (line["fit_id"], line["worker_id"], line["level"]) == ("fit", "wrk_1", "error")
        assert "Traceback" in line["exception"]
