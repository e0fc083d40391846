"""A service for all commands, points in files, and the command line in this process."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app
from tests.serving import Server

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def points_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 points in two groups, with names."""
    generator = np.random.default_rng(0)
    points = np.vstack([generator.normal(0, 1, (120, 2)), generator.normal(8, 1, (80, 2))])
    path = tmp_path_factory.mktemp("points") / "points.csv"
    np.savetxt(path, points, delimiter=",", header="height,width", comments="", fmt="%.17g")
    return path


@pytest.fixture
def run(server: Server, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command against the service; its exit code must be as expected."""
    monkeypatch.setenv("MIXSERVE_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def run(*arguments: str, code: int = 0, **options: object) -> Result:
        ended = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
        assert ended.exit_code == code, ended.output + repr(ended.exception)
        return ended

    return run
