"""Questions and samples in every media type, in constant memory."""

import asyncio
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from service.api.outflow import Outflow
from service.errors import Unprocessable
from service.mixture import GaussianMixture
from tests.api.test_mixtures import created
from tests.api.test_problems import assert_problem
from tests.serving import GOLD, Server, serving

NPY = "application/x-npy"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

# In the canonical order, as stored.
STORED = GaussianMixture.from_parameters(**GOLD).in_canonical_order()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def loaded(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == NPY
    return np.load(io.BytesIO(response.content), allow_pickle=False)


def columns(response: httpx.Response) -> dict[str, np.ndarray]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    return {name: table[name].to_numpy() for name in table.column_names}


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50_003, 2))


@pytest.fixture(scope="module")
def bodies(points: np.ndarray) -> dict[str, bytes]:
    table = pa.table({"x": points[:, 0], "y": points[:, 1]})
    text = "x,y\n" + "\n".join(f"{x!r},{y!r}" for x, y in points.tolist())
    return {
        NPY: npy(points),
        ARROW: arrow(table),
        PARQUET: parquet(table),
        "text/csv": text.encode(),
        "application/json": json.dumps({"points": points.tolist()}).encode(),
    }


@pytest.fixture(scope="module")
def plain(server: Server) -> Iterator[httpx.Client]:
    """Without a check of every answer against its schema, which takes seconds for so many numbers."""
    with server.client() as client:
        yield client


@pytest.fixture
def path(http: httpx.Client) -> str:
    return f"/v1/mixtures/{created(http, **GOLD, columns=['x', 'y'])['id']}"


@pytest.mark.parametrize("media_type", [NPY, ARROW, PARQUET, "text/csv", "application/json"])
def test_all_media_types_are_answered_in_all(
    plain: httpx.Client, path: str, points: np.ndarray, bodies: dict[str, bytes], media_type: str
) -> None:
    def ask(question: str, accept: str) -> httpx.Response:
        headers = {"Content-Type": media_type, "Accept": accept}
        return plain.post(f"{path}/{question}", content=bodies[media_type], headers=headers)

    asked = torch.from_numpy(points)
    density = STORED.log_density(asked).numpy()
    by_component = STORED.component_log_density(asked).numpy()
    posterior = STORED.responsibilities(asked).numpy()
    np.testing.assert_allclose(loaded(ask("log-density", NPY)), density, rtol=1e-13)
    np.testing.assert_allclose(columns(ask("log-density", ARROW))["log_density"], density, rtol=1e-13)
    np.testing.assert_allclose(ask("log-density", "*/*").json()["log_density"], density, rtol=1e-13)
    answer = loaded(ask("log-density?per_component=true", NPY))
    np.testing.assert_allclose(answer, np.column_stack([density, by_component]), rtol=1e-13)
    answer = columns(ask("log-density?per_component=true", ARROW))
    np.testing.assert_allclose(answer["component_log_density_2"], by_component[:, 2], rtol=1e-13)
    np.testing.assert_allclose(loaded(ask("responsibilities", NPY)), posterior, rtol=1e-12, atol=1e-300)
    answer = columns(ask("responsibilities", ARROW))
    np.testing.assert_array_equal(answer["labels"], posterior.argmax(1))
    np.testing.assert_allclose(answer["responsibilities_1"], posterior[:, 1], rtol=1e-12, atol=1e-300)
    text = ask("responsibilities", "application/json").json()
    np.testing.assert_allclose(text["responsibilities"], posterior, rtol=1e-12, atol=1e-300)
    assert text["labels"] == posterior.argmax(1).tolist()


def test_columns_are_put_in_order_by_name(http: httpx.Client, path: str, points: np.ndarray) -> None:
    body = arrow(pa.table({"y": points[:, 1], "x": points[:, 0]}))
    headers = {"Content-Type": ARROW, "Accept": NPY}
    answer = loaded(http.post(f"{path}/log-density", content=body, headers=headers))
    np.testing.assert_allclose(answer, STORED.log_density(torch.from_numpy(points)).numpy(), rtol=1e-13)
    small = http.post(
        f"{path}/log-density", json={"points": points[:3, ::-1].tolist(), "columns": ["y", "x"]}
    )
    np.testing.assert_allclose(small.json()["log_density"], answer[:3], rtol=1e-13)
    body = arrow(pa.table({"x": points[:, 0], "z": points[:, 1]}))
    problem = assert_problem(
        http.post(f"{path}/log-density", content=body, headers=headers), 422, "COLUMNS_MISMATCH"
    )
    assert "'y'" in problem["detail"]


def test_the_last_point_may_be_the_wrong_one(http: httpx.Client, path: str, points: np.ndarray) -> None:
    wrong = points.copy()
    wrong[-1, 1] = np.nan
    headers = {"Content-Type": NPY, "Accept": NPY}
    problem = assert_problem(http.post(f"{path}/log-density", content=npy(wrong), headers=headers), 422)
    assert str(len(points) - 1) in problem["detail"]
    cut = http.post(f"{path}/log-density", content=npy(points)[:-8], headers=headers)
    assert "promises" in assert_problem(cut, 422, "INVALID_POINTS")["detail"]


def test_an_answer_that_nobody_offers(http: httpx.Client, path: str) -> None:
    for question, body in (("log-density", {"points": [[0, 0]]}), ("samples", {})):
        response = http.post(f"{path}/{question}", json=body, headers={"Accept": "text/csv"})
        assert_problem(response, 406)


def test_infinite_log_densities_are_strings_in_large_answers_too(http: httpx.Client, path: str) -> None:
    rows = [[1e200, 0.0]] * 2000
    answer = http.post(f"{path}/log-density", json={"points": rows}).json()
    assert answer["log_density"] == ["-Infinity"] * 2000


def test_samples_are_the_same_in_every_media_type(plain: httpx.Client, path: str) -> None:
    n_samples = 5 * STORED.sample_block_rows + 5  # more than are drawn at a time
    expected, components = (array.numpy() for array in STORED.sample(n_samples, 11))

    def ask(accept: str, **body: Any) -> httpx.Response:
        return plain.post(f"{path}/samples", json={"seed": 11, **body}, headers={"Accept": accept})

    response = ask(NPY, n_samples=n_samples)
    assert response.headers["x-seed"] == "11"
    np.testing.assert_array_equal(loaded(response), expected)
    assert int(response.headers["content-length"]) == len(response.content)
    drawn = columns(ask(ARROW, n_samples=n_samples))
    np.testing.assert_array_equal(np.column_stack([drawn["x"], drawn["y"]]), expected)
    np.testing.assert_array_equal(drawn["components"], components)
    text = ask("application/json", n_samples=n_samples).json()
    assert text["points"] == expected.tolist()
    assert text["components"] == components.tolist()
    assert text["seed"] == 11
    few = ask("application/json", n_samples=7).json()
    np.testing.assert_allclose(few["points"], expected[:7], rtol=1e-13)
    fresh = plain.post(f"{path}/samples", json={"n_samples": 2000}, headers={"Accept": NPY})
    again = ask(NPY, n_samples=2000, seed=int(fresh.headers["x-seed"]))
    np.testing.assert_array_equal(loaded(again), loaded(fresh))


def test_answers_that_are_too_large_are_not_kept(tmp_path: Path) -> None:
    outflow = Outflow(lambda: open(tmp_path / "scratch", "w+b"), 40 << 20)  # noqa: SIM115
    for _ in range(40):
        outflow.append(b"x" * (1 << 20))
    assert (tmp_path / "scratch").stat().st_size >= 39 << 20
    with pytest.raises(Unprocessable, match="in parts"):
        outflow.append(b"x")
    outflow.close()


def test_small_pieces_of_an_answer_are_sent_together(tmp_path: Path) -> None:
    outflow = Outflow(lambda: open(tmp_path / "scratch", "w+b"), 1 << 30)  # noqa: SIM115
    pieces = [bytes([index % 251]) * 5000 for index in range(200)]
    for piece in pieces:
        outflow.append(memoryview(piece))
    outflow.head = b"head"

    async def sent() -> list[bytes]:
        return [bytes(piece) async for piece in outflow.pieces()]

    together = asyncio.run(sent())
    assert b"".join(together) == b"head" + b"".join(pieces)
    assert len(together) == 4


@pytest.fixture(scope="module")
def lone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("memory"), workers=0) as running:
        yield running


def _largest_bytes(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", status)[0])


def _arrow_stream(n_batches: int) -> Iterator[bytes]:
    values = np.random.default_rng(0).normal(size=(2, 1 << 18))
    table = pa.table({"x": values[0], "y": values[1]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for _ in range(n_batches):
            writer.write_table(table)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


def test_large_answers_take_no_memory(lone_server: Server) -> None:
    def ask(http: httpx.Client, path: str, n_batches: int) -> int:
        headers = {"Content-Type": ARROW, "Accept": ARROW}
        with http.stream("POST", path, content=_arrow_stream(n_batches), headers=headers) as response:
            assert response.status_code == 200
            return sum(len(piece) for piece in response.iter_raw())

    with lone_server.client() as http:
        path = f"/v1/mixtures/{created(http, **GOLD)['id']}"
        ask(http, f"{path}/log-density", 4)
        before = _largest_bytes(lone_server)
        n_batches = 20  # 5 million points: 84 MB in, 42 MB out
        assert ask(http, f"{path}/log-density", n_batches) > n_batches * (8 << 18)
        scored = _largest_bytes(lone_server)
        with http.stream(
            "POST", f"{path}/samples", json={"n_samples": 5_000_000}, headers={"Accept": ARROW}
        ) as response:
            assert sum(len(piece) for piece in response.iter_raw()) > 5_000_000 * 24
        drawn = _largest_bytes(lone_server)
    assert scored - before < 60e6
    assert drawn - scored < 40e6
