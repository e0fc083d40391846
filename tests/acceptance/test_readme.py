"""What the README and the examples promise, done as they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.cli import app
from service.settings import Settings
from tests.serving import Server, environment

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = README + (ROOT / "docs/configuration.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run_shell(text: str, server: Server) -> list[dict]:
    """The JSON answers of the curl commands in a block, sent to a server."""
    commands = re.split(r"\n\s*\n", text.replace(ADDRESS, server.url).strip())
    answers = []
    for command in commands:
        ended = subprocess.run(
            ["bash", "-euc", command.replace("curl -s", "curl -s --noproxy '*'")],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        answers.append(json.loads(ended.stdout))
    return answers


def test_the_first_fit_and_its_questions_answer_as_shown(server: Server):
    asking = [block for block in blocks("sh") if "curl" in block and "Authorization" not in block]
    first, questions, exercise = asking
    shown = json.loads(blocks("json")[0])
    (fit,) = run_shell(first, server)
    result, expected = fit["result"], shown["result"]
    assert fit["status"] == shown["status"]
    assert result["outcome"] == expected["outcome"]
    for name in ("weights", "means", "covariances"):
        for found, printed in zip(result["mixture"][name], expected["mixture"][name], strict=True):
            assert _flat(found) == pytest.approx(_flat(printed), abs=5e-5)
    for name in ("log_likelihood", "bic"):
        assert result[name] == pytest.approx(expected[name], abs=5e-5)
    assert result["optima"][0]["hits"] == expected["optima"][0]["hits"]

    density, responsibilities, samples = run_shell(
        questions.replace("MIXTURE_ID", result["mixture_id"]), server
    )
    (printed,) = re.findall(r'`\{"log_density": (\[.*?\])\}`', README)
    assert density["log_density"] == pytest.approx(json.loads(printed), abs=5e-4)
    assert responsibilities["labels"][0] != responsibilities["labels"][2]
    assert len(samples["points"]) == 3

    (learned,) = run_shell(exercise, server)
    assert learned["result"]["recovery"]["adjusted_rand_index"] > 0.98


def _flat(numbers: float | list) -> list[float]:
    return [value for part in numbers for value in _flat(part)] if isinstance(numbers, list) else [numbers]


def test_the_python_lines_choose_three_full_components(server: Server):
    (code,) = blocks("python")
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(ADDRESS, server.url)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    chosen, densities = ended.stdout.splitlines()
    assert chosen.startswith("3 full 3331.19")
    assert json.loads(densities) == pytest.approx([-3.93, -244.8], abs=0.1)


def test_the_refusal_reads_as_shown(http: httpx.Client):
    shown = json.loads(blocks("json")[1])
    answer = http.post("/v1/fits", json={"dataset": {"points": [[1], [2, 3]]}, "n_components": 3}).json()
    assert {name: answer[name] for name in shown if name != "request_id"} == {
        name: value for name, value in shown.items() if name != "request_id"
    }


def test_every_setting_and_every_command_is_in_a_table():
    listed = re.findall(r"^\| `(MIXSERVE_\w+)` \| (.*?) \|", CONFIGURATION, re.MULTILINE)
    rows = dict(listed)
    assert len(rows) == len(listed)
    assert rows.keys() == {f"MIXSERVE_{name.upper()}" for name in Settings.model_fields}
    units = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
    for name, default in rows.items():
        value = Settings.model_fields[name.removeprefix("MIXSERVE_").lower()].default
        if isinstance(value, bool):
            assert default == f"`{str(value).lower()}`"
        elif isinstance(value, int | float):
            number, _, unit = default.partition(" ")
            assert float(number) * units.get(unit, 1) == value, name
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {group.name for group in app.registered_groups}
    names_listed = re.findall(r"^\| `mixserve (.*?)` \|", README, re.MULTILINE)
    assert {name for names in names_listed for name in re.findall(r"\w+", names)} == commands


def test_every_file_that_is_linked_is_there():
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert len(links) > 5
    for link in links:
        assert (ROOT / link).is_file(), link
    assert {Path(link).name for link in links if "exercise/" in link} == {
        path.name for path in (ROOT / "examples/exercise").glob("*.json")
    }


def test_the_exercise_runs_from_end_to_end(server: Server, tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples/exercise.py"), server.url],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    differences = re.findall(r"(?:mean|deviation) +[\d.]+ +[\d.]+ +([+-][\d.]+)", ended.stdout)
    assert len(differences) == 4
    assert all(abs(float(difference)) < 0.05 for difference in differences)
    three, six = (
        float(re.search(rf"^ +{name} +(-[\d.]+)", ended.stdout, re.MULTILINE)[1]) for name in ("three", "six")
    )
    assert six > three
    hits = [int(row) for row in re.findall(r"^ +(\d+) +-[\d.]+ +\w+_?\w* +", ended.stdout, re.MULTILINE)]
    assert sum(hits) == 32
    assert (tmp_path / "mixserve-demo/exercise.png").read_bytes().startswith(b"\x89PNG")


def test_the_exercise_says_when_no_service_answers(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples/exercise.py"), "http://127.0.0.1:9"],
        cwd=tmp_path,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "nothing answers at http://127.0.0.1:9; start a service with `make serve`" in ended.stderr
