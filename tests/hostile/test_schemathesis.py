"""Requests that schemathesis makes from the OpenAPI document: all its checks, in all its phases."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile import AT_LENGTH
from tests.serving import serving

SETTINGS = {"max_body_bytes": 10**6, "max_dataset_bytes": 10**6, "max_answer_bytes": 4 * 10**6}
FOLDER = Path(__file__).parent


@pytest.mark.timeout(3600 if AT_LENGTH else 400)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data", **SETTINGS) as server:
        options = ["--phases", "examples,coverage,fuzzing,stateful", "--checks", "all", "--no-color"]
        length = (
            ["--max-examples", "300"] if AT_LENGTH else ["--generation-deterministic", "--max-examples", "6"]
        )
        ended = subprocess.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "schemathesis.cli",
                    "--config-file",
                    str(FOLDER / "schemathesis.toml"),
                ),
                *("run", f"{server.url}/openapi.json", *options, *length),
            ],
            cwd=FOLDER.parents[1],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "26 selected / 26 total" in ended.stdout
        assert "Traceback" not in server.log
