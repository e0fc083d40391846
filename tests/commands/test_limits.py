"""Limits that owners have of their own, from the command line."""

import json
from pathlib import Path

import pytest

from tests.commands.conftest import Run


def test_limits_are_given_listed_and_taken_back(run: Run, tmp_path: Path) -> None:
    here = ("--data-dir", tmp_path)
    run("limits", "set", "lab", "running-fits", "4", *here)
    run("limits", "set", "lab", "running-fits", "5", *here)  # in place of the one before
    run("limits", "set", "lab", "requests-per-second", "2.5", *here)
    said = run("limits", "set", "guests", "stored-bytes", "none", *here)
    assert "stored-bytes of guests: none" in said.stderr
    listed = json.loads(run("limits", "list", "--json", *here).stdout)
    assert [tuple(row.values()) for row in listed] == [
        ("guests", "stored_bytes", None),
        ("lab", "requests_per_second", 2.5),
        ("lab", "running_fits", 5.0),
    ]
    assert "running-fits" in run("limits", "list", *here).stdout
    run("limits", "unset", "guests", "stored-bytes", *here)
    assert (
        "has no stored-bytes of its own"
        in run("limits", "unset", "guests", "stored-bytes", *here, code=1).stderr
    )
    assert len(json.loads(run("limits", "list", "--json", *here).stdout)) == 2


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "2.5", "1e400", "many", ""])
def test_what_is_no_limit_is_refused(run: Run, tmp_path: Path, value: str) -> None:
    refused = run("limits", "set", "lab", "queued-fits", "--data-dir", tmp_path, "--", value, code=1)
    assert "queued-fits must be a whole number above 0, or none" in refused.stderr
