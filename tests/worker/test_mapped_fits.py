"""A fit over a dataset that stays on the disk takes far less memory than its points would."""

import threading
from pathlib import Path

import numpy as np
import torch

from service.mixture.memory import LARGEST_COPIED_BYTES
from service.storage.dataset_store import DatasetStore
from service.worker.messages import Succeeded
from tests.worker.test_fitting import _claim, _run

N_FEATURES, ROWS_AT_ONCE, N_CHUNKS = 16, 100_000, 18
SIZE_BYTES = 8 * N_FEATURES * ROWS_AT_ONCE * N_CHUNKS
CENTRES = np.random.default_rng(1).normal(0, 8, (3, N_FEATURES))


def _stored(store: DatasetStore) -> str:
    generator = np.random.default_rng(2)
    with store.draft(N_FEATURES) as draft:
        for _ in range(N_CHUNKS):
            rows = generator.standard_normal((ROWS_AT_ONCE, N_FEATURES))
            draft.append(rows + CENTRES[generator.integers(3, size=ROWS_AT_ONCE)])
        draft.finish()
        store.publish(draft)
        return draft.sha256


def _anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))


class _Highest:
    """The most memory beside mapped files while a block runs."""

    def __enter__(self) -> "_Highest":
        self.bytes = self.before = _anonymous_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.bytes = max(self.bytes, _anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_a_fit_does_not_hold_its_points(store: DatasetStore) -> None:
    assert SIZE_BYTES > LARGEST_COPIED_BYTES
    small = np.random.default_rng(0).standard_normal((2000, N_FEATURES))
    _run(_claim(store, small, n_components=3), store)  # whatever is loaded once is loaded
    claim = _claim(store, small, n_components=3, n_init=1, max_steps=5)
    claim = type(claim)(**{**vars(claim), "dataset_sha256": _stored(store)})
    with _Highest() as memory:
        ended = _run(claim, store)
    assert isinstance(ended, Succeeded)
    found = torch.as_tensor(ended.parameters["means"])
    nearest = torch.cdist(found, torch.as_tensor(CENTRES)).amin(1)
    assert float(nearest.max()) < 0.05
    assert memory.bytes - memory.before < SIZE_BYTES / 2
