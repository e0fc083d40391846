"""The commands against a service that runs: data on standard output, messages beside it, exit codes."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from numpy.typing import NDArray

from service.cli import app
from service.client import Client
from service.commands import ranges
from tests.commands.conftest import Run
from tests.serving import Server, command, environment

ONE = ["--components", "2", "--n-init", "2"]


def rows(text: str) -> tuple[list[str], NDArray[np.float64]]:
    header, *lines = csv.reader(io.StringIO(text))
    return header, np.array(lines, dtype=float)


@pytest.fixture(scope="module")
def mixture_id(client: Client, points_csv: Path) -> str:
    points = np.loadtxt(points_csv, delimiter=",", skiprows=1)
    dataset = client.upload(points, columns=["height", "width"])
    return client.fit(dataset_id=dataset.id, n_components=2, n_init=2).wait(progress=False).mixture_id


def test_a_fit_at_the_service_and_one_here_are_the_same(run: Run, points_csv: Path) -> None:
    asked = ["fit", points_csv, "--components", "1:3", "--family", "full,diag", "--n-init", "2"]
    there, here = run(*asked), run(*asked, "--local")
    assert there.stderr.startswith("mixserve: fit_")
    assert here.stderr == ""
    one, other = json.loads(there.stdout), json.loads(here.stdout)
    assert len(one["candidates"]) == 6
    assert one.pop("mixture_id").startswith("mix_")
    for result in (one, other):
        result.pop("elapsed_seconds")
    assert one == other


def test_a_fit_as_csv_has_a_row_for_each_component(run: Run, points_csv: Path) -> None:
    header, numbers = rows(run("fit", points_csv, *ONE, "--format", "csv").stdout)
    assert header == ["weight", "mean_height", "mean_width", "sd_height", "sd_width"]
    np.testing.assert_allclose(numbers, [[0.6, 0, 0, 1, 1], [0.4, 8, 8, 1, 1]], atol=0.5)


def test_points_come_from_standard_input_too(run: Run, points_csv: Path) -> None:
    given = run("fit", "-", *ONE, "--columns", "width", input=points_csv.read_text())
    assert len(json.loads(given.stdout)["mixture"]["means"][0]) == 1


def test_answers_in_every_format(run: Run, client: Client, points_csv: Path, mixture_id: str) -> None:
    points = np.loadtxt(points_csv, delimiter=",", skiprows=1)
    mixture = client.mixture(mixture_id)
    for asked, field, expected in (
        ("score", "log_density", mixture.log_density(points)),
        ("responsibilities", "responsibilities", mixture.responsibilities(points)),
    ):
        as_json = json.loads(run(asked, mixture_id, points_csv, "--format", "json").stdout)
        np.testing.assert_array_equal(as_json[field], expected)
        _, numbers = rows(run(asked, mixture_id, points_csv).stdout)
        np.testing.assert_array_equal(numbers.reshape(expected.shape), expected)
        array = np.load(io.BytesIO(run(asked, mixture_id, points_csv, "--format", "npy").stdout_bytes))
        np.testing.assert_array_equal(array, expected)
    header, drawn = rows(run("sample", mixture_id, "-n", "5", "--seed", "1").stdout)
    assert header == ["height", "width"]
    np.testing.assert_array_equal(drawn, mixture.sample(5, seed=1))


def test_pictures_are_saved(run: Run, mixture_id: str, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    run("plot", "mixture", mixture_id, "--kind", "density", "--output", path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in run("plot", "mixture", mixture_id, "--output", "-").stdout_bytes
    run("plot", "mixture", mixture_id, "--output", "picture.gif", code=2)
    run("plot", "mixture", mixture_id, "--kind", "no such", "--output", path, code=1)


def test_fits_are_listed_watched_cancelled_and_deleted(run: Run, client: Client, points_csv: Path) -> None:
    points = np.loadtxt(points_csv, delimiter=",", skiprows=1)
    endless = client.fit(points, 2, tolerance=0, max_steps=10**9)
    assert endless.id in run("fits", "list").stdout
    assert endless.id in run("fits", "cancel", endless.id).stderr
    assert "CANCELLED" in run("fits", "watch", endless.id, code=1).stderr
    assert json.loads(run("fits", "show", endless.id).stdout)["status"] == "cancelled"
    listed = json.loads(run("fits", "list", "--status", "cancelled", "--format", "json").stdout)
    assert endless.id in [fit["id"] for fit in listed]
    assert {fit["status"] for fit in listed} == {"cancelled"}  # others of this service, too
    run("fits", "delete", endless.id)
    assert "FIT_NOT_FOUND" in run("fits", "show", endless.id, code=1).stderr
    quick = client.fit(points, 1)
    watched = json.loads(run("fits", "watch", quick.id).stdout)
    assert watched["mixture_id"] == quick.wait(progress=False).mixture_id


def test_datasets_and_mixtures(run: Run, points_csv: Path) -> None:
    made = json.loads(run("datasets", "upload", points_csv, "--name", "two groups").stdout)
    assert (made["name"], made["columns"]) == ("two groups", ["height", "width"])
    header, *lines = csv.reader(io.StringIO(run("datasets", "list", "--format", "csv").stdout))
    assert dict(zip(header, lines[0], strict=True))["id"] == made["id"]
    assert json.loads(run("datasets", "show", made["id"]).stdout) == made
    result = json.loads(run("fit", "--dataset", made["id"], *ONE).stdout)
    identifier = result["mixture_id"]
    assert identifier in run("mixtures", "list", "--limit", "1").stdout
    assert json.loads(run("mixtures", "show", identifier).stdout)["weights"] == result["mixture"]["weights"]
    assert rows(run("mixtures", "show", identifier, "--format", "csv").stdout)[0][1] == "mean_height"
    run("datasets", "delete", made["id"])
    run("mixtures", "delete", identifier)
    assert "NOT_FOUND" in run("datasets", "show", made["id"], code=1).stderr
    assert "NOT_FOUND" in run("mixtures", "show", identifier, code=1).stderr


def test_what_goes_wrong_has_its_exit_code(run: Run, points_csv: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n3,nonsense\n")
    for arguments, code, said in (
        (["fit", points_csv, "--components", "nonsense"], 2, "1:8"),
        (["fit"], 2, "FILE"),
        (["fit", "points.txt"], 2, ".csv"),
        (["fit", tmp_path / "none.csv"], 1, "No such file"),
        (["fit", bad], 1, "bad.csv"),
        (["fit", points_csv, "--family", "round"], 1, "/covariance_type"),
        (["fit", points_csv, "--family", "round", "--local"], 1, "covariance_type"),
        (["fit", points_csv, "--components", "201", "--local"], 1, "components"),
        (["fit", points_csv, "--tolerance", "-1"], 1, "/tolerance"),
        (["score", "mix_nope", points_csv], 1, "MIXTURE_NOT_FOUND"),
        (["fits", "list", "--url", "http://127.0.0.1:9"], 3, "mixserve serve"),
    ):
        ended = run(*arguments, code=code)
        assert said in ended.stderr, arguments
        assert ended.stdout == ""


def test_the_bar_shows_on_a_terminal_only(server: Server, points_csv: Path) -> None:
    arguments = command("fit", str(points_csv), *ONE, "--url", server.url)
    kept = environment() | {"TERM": "xterm", "NO_PROXY": "127.0.0.1"}
    plain = subprocess.run(arguments, env=kept, capture_output=True, text=True, check=True)
    assert plain.stderr.strip().startswith("mixserve: fit_")
    assert len(plain.stderr.splitlines()) == 1
    leader, follower = pty.openpty()
    shown = subprocess.Popen(arguments, env=kept, stdout=subprocess.PIPE, stderr=follower)
    os.close(follower)
    seen = b""
    try:
        while part := os.read(leader, 65_536):
            seen += part
    except OSError:  # how Linux says that the last process has closed the other end
        pass
    os.close(leader)
    assert shown.stdout is not None
    assert json.loads(shown.stdout.read())["n_components"] == 2
    shown.stdout.close()
    assert shown.wait() == 0
    assert "━" in seen.decode()
    assert "succeeded" in seen.decode()


def test_commands_of_the_client_load_nothing_of_the_server(server: Server) -> None:
    code = (
        "import sys\nfrom service.cli import app\n"
        f"try:\n    app(['fits', 'list', '--url', {server.url!r}])\nexcept SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = {'torch', 'fastapi', 'sqlalchemy', 'matplotlib', 'pyarrow', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment() | {"NO_PROXY": "127.0.0.1"}, check=False
    )
    assert ended.returncode == 0


def test_every_help_has_an_example(run: Run) -> None:
    def commands(group: object, *path: str) -> list[tuple[str, ...]]:
        inner = getattr(group, "commands", None)
        if inner is None:
            return [path]
        return [found for name, each in inner.items() for found in commands(each, *path, name)]

    found = commands(typer.main.get_command(app))
    assert len(found) >= 22
    for path in found:
        text = run(*path, "--help").stdout
        assert "Example:" in text, path
        assert f"mixserve {' '.join(path)}" in " ".join(text.split()), path


@pytest.mark.parametrize(
    ("text", "meant"), [("3", 3), ("1:3", [1, 2, 3]), ("2,4", [2, 4]), ("1:2,5", [1, 2, 5]), ("3:3", [3])]
)
def test_numbers_of_components(text: str, meant: int | list[int]) -> None:
    assert ranges.components(text) == meant


@pytest.mark.parametrize("text", ["", "x", "0", "3:1", "1:", "1.5", "-2"])
def test_what_is_no_number_of_components(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        ranges.components(text)
