"""A client that openapi-python-client generates from `openapi.json`, used against a running service."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import numpy as np
import pytest

from scripts.write_openapi import OPENAPI
from tests import oracles
from tests.serving import GOLD, Server

PACKAGE = "generated_mixserve"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("generated")
    paths = ["--path", str(OPENAPI), "--output-path", str(folder / PACKAGE)]
    ended = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none", *paths],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # It knows no points but in JSON, and says so; it must have left out nothing else.
    complaints = re.findall(
        r"^(?:WARNING|ERROR|Unable).*\n\n(.*)$", ended.stdout + ended.stderr, re.MULTILINE
    )
    assert [complaint for complaint in complaints if "Unsupported content" not in complaint] == []
    sys.path.insert(0, str(folder))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))


def test_it_has_every_operation(generated: ModuleType) -> None:
    folder = Path(str(generated.__file__)).parent
    modules = {path.stem for path in folder.glob("api/*/*.py")} - {"__init__"}
    assert modules == set(re.findall(r'"operationId": "(\w+)"', OPENAPI.read_text()))


def test_from_a_dataset_to_log_densities(generated: ModuleType, server: Server) -> None:
    def call(tag: str, name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}.api.{tag}.{name}")

    models = importlib.import_module(f"{PACKAGE}.models")
    client = generated.Client(server.url, timeout=httpx.Timeout(90), httpx_args={"trust_env": False})
    with client:
        gold = models.MixtureSpecification.from_dict(GOLD)
        body = models.DatasetCreation(gold=gold, n_samples=500, seed=0)
        dataset = call("datasets", "create_dataset").sync(client=client, body=body)
        assert isinstance(dataset, models.Dataset)
        request = models.FitRequest(dataset=models.DatasetReference(id=dataset.id), n_components=3)
        fit = call("fits", "create_fit").sync(client=client, body=request, prefer="wait=60")
        assert fit.status == models.FitStatus.SUCCEEDED
        mixture = fit.result.mixture
        asked = [[0.0, 0.0], [1.0, 1.0]]
        answer = call("questions", "get_log_density").sync(
            fit.result.mixture_id, client=client, body=models.PointsBody(points=asked)
        )
        expected = oracles.log_density(
            np.array(asked), np.array(mixture.weights), np.array(mixture.means), np.array(mixture.covariances)
        )
        np.testing.assert_allclose(answer.log_density, expected, rtol=1e-10)
        refused = call("mixtures", "get_mixture").sync("mix_nope", client=client)
        assert isinstance(refused, models.Problem)
        assert refused.code == "MIXTURE_NOT_FOUND"
