"""A short run of what `make chaos` does at length."""

from pathlib import Path

import pytest

from tests.chaos.__main__ import run
from tests.conftest import Backend


def test_no_promise_is_broken_by_killing_any_process(
    backend: Backend, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = ""
    if backend == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    outcome = run(tmp_path, url, kills=8, seconds=12, seed=4, clients=3)
    assert outcome.killed.total() == 8, outcome.log
    assert outcome.n_promised > 0, outcome.log
    assert outcome.findings == [], outcome.log
