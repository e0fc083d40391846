"""The container files, step by step, as far as a machine without a container engine goes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
import yaml

from service.cli import app
from service.settings import Settings
from tests.conftest import PostgresqlServer
from tests.serving import GOLD, until

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("mixserve")}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of instruction and argument, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


DOCKERFILE = instructions()
LAST_STAGE = DOCKERFILE[max(i for i, (name, _) in enumerate(DOCKERFILE) if name == "FROM") :]


def given(name: str, stage: list[tuple[str, str]] = LAST_STAGE) -> list[str]:
    return [argument for instruction, argument in stage if instruction == name]


def copied() -> list[str]:
    """What the Dockerfile takes from the tree."""
    sources = [argument.split()[:-1] for argument in given("COPY", DOCKERFILE) if "--from" not in argument]
    return [path for paths in sources for path in paths]


def interpolated(text: str) -> str:
    """A value of the compose file with nothing set outside: every variable has a default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    return {name: interpolated(str(value)) for name, value in service["environment"].items()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the Dockerfile installs it, from what it copies alone, in a folder of its own."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, source / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, source / path)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("mixserve-*.whl")
    target = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True)
    return folder


def run_installed(installed: Path, folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Starts the image's entry point with the installed project, far from the tree."""
    (entry,) = json.loads(given("ENTRYPOINT")[0])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MIXSERVE_")}
    return subprocess.Popen(
        [sys.executable, str(installed / "site" / "bin" / entry), *arguments],
        cwd=folder,
        env=kept | {"PYTHONPATH": str(installed / "site"), "PYTHONUNBUFFERED": "1"} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> int:
    process.terminate()
    try:
        return process.wait(15)
    finally:
        process.kill()
        if process.stdout:
            process.stdout.close()


def test_the_wheel_carries_the_migrations_the_pages_and_the_licences(installed: Path):
    (wheel,) = installed.glob("mixserve-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for folder, place in (("alembic", "service/storage/alembic"), ("service/web", "service/web")):
        files = [
            path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        assert files
        for path in files:
            assert f"{place}/{path.relative_to(ROOT / folder)}" in names
    assert any(fnmatch(name, "mixserve-*.dist-info/licenses/LICENSE") for name in names)
    assert any(fnmatch(name, "*licenses/service/web/vendor/swagger-ui/LICENSE") for name in names)
    assert "service/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "examples/", "benchmarks/"))]


def test_the_compose_file_s_processes_work_together_from_the_installed_wheel(
    installed: Path, tmp_path: Path, postgresql_server: PostgresqlServer
):
    """The migration, an API replica and a worker as there, on a real PostgreSQL; then a fit."""
    data = tmp_path / "data"
    data.mkdir()
    settings = settings_of(SERVICES["api"]) | {
        "MIXSERVE_DATA_DIR": str(data),
        "MIXSERVE_DATABASE_URL": postgresql_server.create(migrated=False),
        "MIXSERVE_DATASET_STORE_URL": f"file://{data}/datasets",
    }
    migrate = run_installed(installed, tmp_path, *SERVICES["migrate"]["command"], **settings)
    said, _ = migrate.communicate(timeout=60)
    assert migrate.returncode == 0, said
    command = [argument if argument != "8000" else "0" for argument in SERVICES["api"]["command"]]
    api = run_installed(installed, tmp_path, *command, **settings)
    worker = run_installed(installed, tmp_path, *SERVICES["worker"]["command"], **settings)
    try:
        assert api.stdout is not None
        line = next(line for line in api.stdout if "listens at" in line)
        port = line.rsplit(":", 1)[1].strip()
        assert line.strip() == f"mixserve listens at http://0.0.0.0:{port}"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            until(lambda: _answers(http, "/readyz"), 60)
            assert "swagger-ui" in http.get("/docs").text
            assert http.get("/static/vendor/swagger-ui/swagger-ui-bundle.js").status_code == 200
            body = {"dataset": {"gold": GOLD, "n_samples": 200}, "n_components": 3}
            fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).json()
            assert fit["status"] == "succeeded"
            assert fit["result"]["device"] == "cpu"
        assert healthy(port) == 0
    finally:
        ended = [end(worker), end(api)]
    assert ended == [0, 0]
    assert healthy(port) != 0


def _answers(http: httpx.Client, path: str) -> bool:
    try:
        return http.get(path).is_success
    except httpx.TransportError:
        return False


def healthy(port: str) -> int:
    """The exit status of the image's health check, asked of another port."""
    (check,) = given("HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    assert command[0] == "python"
    assert command[2].count(":8000/livez") == 1
    code = command[2].replace(":8000", f":{port}")
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode


def test_the_image_refuses_a_network_that_it_was_not_told_is_closed(installed: Path, tmp_path: Path):
    (arguments,) = given("CMD")
    refused = run_installed(installed, tmp_path, *json.loads(arguments), MIXSERVE_DATA_DIR=str(tmp_path))
    said, _ = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "MIXSERVE_AUTH=trusted-network" in said
    assert list(tmp_path.iterdir()) == []


def test_the_image_is_small_in_what_it_may_do():
    assert given("USER") not in ([], ["root"], ["0"])
    assert given("USER")[0] in " ".join(given("RUN"))
    assert not given("ADD", DOCKERFILE)
    assert [name for name, _ in DOCKERFILE].count("FROM") == 2
    assert given("COPY") == ["--from=build /opt/mixserve /opt/mixserve"]


def test_the_cpu_is_the_default_and_cuda_an_argument():
    assert given("ARG", DOCKERFILE) == ["PYTHON_VERSION=3.13", "TORCH_VARIANT=cpu", "EXTRAS=plots"]
    (torch_step,) = [step for step in given("RUN", DOCKERFILE) if "torch" in step]
    words = shlex.split(torch_step.partition("&&")[0])
    assert words[words.index("--extra-index-url") + 1] == "https://download.pytorch.org/whl/${TORCH_VARIANT}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert words[-1] in project["dependencies"]  # the same bound in both places
    version = given("ARG", DOCKERFILE)[0].partition("=")[2]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_the_entry_point_is_a_command_of_the_project_and_its_words_are_understood():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(given("ENTRYPOINT")[0])[0] in scripts
    understood(json.loads(given("CMD")[0]))


def understood(arguments: list[str]) -> None:
    """Parses a command line as `mixserve` does; fails where it would."""
    group = typer.main.get_command(app)
    name, *rest = arguments
    group.commands[name].make_context(name, rest)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", copied())
def test_what_is_copied_is_there_and_not_ignored(path: str):
    assert (ROOT / path).exists()
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in rules  # all is out but
    assert f"!{path}" in rules


@pytest.mark.parametrize("name", OURS)
def test_every_service_of_ours_is_a_command_with_known_settings(name: str):
    service = OURS[name]
    understood(service["command"])
    settings = settings_of(service)
    for variable in settings:
        assert variable.removeprefix("MIXSERVE_").lower() in Settings.model_fields
    read = Settings(
        **{variable.removeprefix("MIXSERVE_").lower(): value for variable, value in settings.items()}
    )
    assert read.resolved_database_url.startswith("postgresql+psycopg://mixserve:")
    assert str(read.dataset_store_folder).startswith(service["volumes"][0].partition(":")[2])
    assert "$" not in "".join(settings.values())
    assert service["build"]["args"]["TORCH_VARIANT"] == service["image"].partition(":")[2]


def test_the_services_wait_for_the_migration_and_that_for_a_healthy_database():
    assert SERVICES["migrate"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert SERVICES["database"]["healthcheck"]["test"][1] == "pg_isready"
    for name in ("api", "worker", "gpu-worker"):
        condition = {"migrate": {"condition": "service_completed_successfully"}}
        assert SERVICES[name]["depends_on"] == condition
    assert SERVICES["migrate"]["restart"] == "no"


def test_only_the_api_is_published_and_to_this_machine_alone():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8000-8001:8000"]}
    first, last = map(int, published["api"][0].split(":")[1].split("-"))
    assert last - first + 1 == SERVICES["api"]["deploy"]["replicas"]


def test_every_volume_is_declared_and_the_points_are_shared():
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert used == set(COMPOSE["volumes"])
    assert {service["volumes"][0] for service in OURS.values()} == {"points:/data"}


def test_a_gpu_is_asked_for_only_in_the_profile_of_that_name():
    assert SERVICES["gpu-worker"]["profiles"] == ["gpu"]
    (device,) = SERVICES["gpu-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert not any("profiles" in service for name, service in SERVICES.items() if name != "gpu-worker")
