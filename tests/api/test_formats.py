"""Points in every format over HTTP: the same dataset, its columns' names, and it all back again."""

import gzip
import io
import socket
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from service.codecs.registry import ARROW, CSV, NPY, PARQUET
from tests.api.test_problems import assert_problem
from tests.codecs import packing
from tests.codecs.packing import PACKED
from tests.serving import GOLD, Server, until

POINTS = np.random.default_rng(1).standard_normal((500, 3))
NAMES = ["height", "width", "age"]


def upload(
    http: httpx.Client, media_type: str, content: Any, query: str = "", **headers: str
) -> httpx.Response:
    return http.post(f"/v1/datasets{query}", content=content, headers={"Content-Type": media_type} | headers)


def test_every_format_is_the_same_dataset(http: httpx.Client) -> None:
    answers = [http.post("/v1/datasets", json={"points": POINTS.tolist()})]
    answers += [upload(http, media_type, pack(POINTS)) for media_type, pack in PACKED.values()]
    data = packing.table(POINTS, NAMES)
    answers += [upload(http, ARROW, packing.arrow(data)), upload(http, PARQUET, packing.parquet(data))]
    answers.append(upload(http, NPY, packing.npy(POINTS), "?columns=height,width,age&name=people"))
    packed = {
        "gzip": gzip.compress(packing.npy(POINTS)),
        "zstd": pa.compress(packing.npy(POINTS), "zstd", asbytes=True),
    }
    answers += [upload(http, NPY, body, **{"Content-Encoding": name}) for name, body in packed.items()]
    assert [answer.status_code for answer in answers] == [201] * len(answers)
    assert {answer.json()["sha256"] for answer in answers} == {answers[0].json()["sha256"]}
    assert {answer.json()["size_bytes"] for answer in answers} == {POINTS.nbytes}
    assert answers[-3].json()["columns"] == answers[-4].json()["columns"] == NAMES
    assert answers[-3].json()["name"] == "people"


def test_single_precision_is_the_same_in_every_format(http: httpx.Client) -> None:
    single = POINTS.astype(np.float32)
    answers = [http.post("/v1/datasets", json={"points": single.astype(float).tolist()})]
    answers += [
        upload(http, *packed)
        for packed in [(NPY, packing.npy(single)), (ARROW, packing.arrow(packing.table(single)))]
    ]
    answers.append(upload(http, PARQUET, packing.parquet(packing.table(single))))
    answers.append(upload(http, CSV, packing.csv(packing.table(single.astype(float)))))
    assert len({answer.json()["sha256"] for answer in answers}) == 1


def test_points_come_back_in_every_format(http: httpx.Client) -> None:
    dataset = upload(http, ARROW, packing.arrow(packing.table(POINTS, NAMES))).json()
    path = f"/v1/datasets/{dataset['id']}/points"
    answer = http.get(path, headers={"Accept": NPY})
    assert answer.headers["content-type"] == NPY
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), POINTS)
    tagged = http.get(path, headers={"Accept": NPY, "If-None-Match": answer.headers["etag"]})
    assert tagged.status_code == 304
    assert http.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 200
    with pa.ipc.open_stream(http.get(path, headers={"Accept": ARROW}).content) as reader:
        assert reader.schema.names == NAMES
        np.testing.assert_array_equal(np.stack(reader.read_all().columns, axis=1), POINTS)
    part = http.get(f"{path}?offset=490&limit=100", headers={"Accept": NPY})
    np.testing.assert_array_equal(np.load(io.BytesIO(part.content)), POINTS[490:])
    assert_problem(http.get(path, headers={"Accept": CSV}), 406, "NOT_ACCEPTABLE")


def test_columns_are_put_in_the_order_of_the_mixture(http: httpx.Client) -> None:
    mixture = http.post("/v1/mixtures", json=GOLD | {"columns": ["a", "b"]}).json()
    path = f"/v1/mixtures/{mixture['id']}/log-density"
    points = POINTS[:, :2]
    expected = http.post(path, json={"points": points.tolist()}).json()
    swapped = packing.table(points[:, ::-1], ["b", "a"])
    for media_type, body in ((ARROW, packing.arrow(swapped)), (CSV, packing.csv(swapped))):
        assert http.post(path, content=body, headers={"Content-Type": media_type}).json() == expected
    named = {"points": points[:, ::-1].tolist(), "columns": ["b", "a"]}
    assert http.post(path, json=named).json() == expected
    problem = assert_problem(http.post(path, json=named | {"columns": ["b", "c"]}), 422, "COLUMNS_MISMATCH")
    assert "'a'" in problem["detail"]
    more = packing.arrow(packing.table(POINTS, ["a", "b", "c"]))
    problem = assert_problem(
        http.post(path, content=more, headers={"Content-Type": ARROW}), 422, "COLUMNS_MISMATCH"
    )
    assert "'c'" in problem["detail"]
    strange = {"points": [[0.0] * 26], "columns": [chr(place) for place in range(ord("a"), ord("z") + 1)]}
    problem = assert_problem(http.post(path, json=strange), 422, "COLUMNS_MISMATCH")
    assert "'c'" in problem["detail"]  # of all that are too many the first, whatever sets of strings do
    chosen = http.post(f"{path}?columns=a,b", content=more, headers={"Content-Type": ARROW})
    assert chosen.json() == expected


@pytest.mark.parametrize(
    ("media_type", "body", "query", "status", "pointer"),
    [
        (NPY, packing.npy(np.where(np.eye(3) > 0, np.nan, 1.0)), "", 422, "/points/0/0"),
        (NPY, packing.npy(POINTS)[:-9], "", 422, "/points"),
        (NPY, packing.npy(POINTS), "?columns=a,a,b", 422, "/columns"),
        (NPY, packing.npy(POINTS), "?columns=a,b", 422, "/points"),
        (NPY, packing.npy(POINTS), "?nonsense=1", 422, "/nonsense"),
        (NPY, packing.npy(POINTS), "?name=", 422, "/name"),
        (NPY, packing.npy(np.ones((1, 10_001))), "", 422, None),
        (NPY, packing.npy_header("'<f8'", "(8589934592, 1)"), "", 422, None),
        (ARROW, packing.arrow(packing.table(POINTS[:, :1], ["\x00"])), "", 422, "/columns"),
        (CSV, packing.csv(packing.table(POINTS[:, :2], ["", "b"])), "", 422, "/columns"),
        (CSV, b"a,b\n1,x\n", "", 422, "/points"),
        ("text/csv; header=perhaps", b"1\n", "", 415, None),
        ("application/x-npz", b"", "", 415, None),
    ],
)
def test_uploads_that_are_refused(
    http: httpx.Client, media_type: str, body: bytes, query: str, status: int, pointer: str | None
) -> None:
    before = http.get("/v1/datasets?page_size=1").json()["items"]
    problem = assert_problem(upload(http, media_type, body, query), status)
    if pointer is not None:
        assert problem["errors"][0]["pointer"] == pointer
    assert http.get("/v1/datasets?page_size=1").json()["items"] == before


def test_a_header_may_be_declared(http: httpx.Client) -> None:
    given = upload(http, "text/csv; charset=utf-8; header=present", b"1,2\n3,4\n").json()
    assert (given["n_samples"], given["columns"]) == (1, ["1", "2"])


def test_an_upload_with_a_key_is_made_once(http: httpx.Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    first = upload(http, NPY, packing.npy(POINTS), **key)
    again = upload(http, NPY, packing.npy(POINTS), **key)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert_problem(upload(http, NPY, packing.npy(POINTS[1:]), **key), 422, "IDEMPOTENCY_KEY_REUSED")
    assert_problem(upload(http, NPY, packing.npy(POINTS), "?name=x", **key), 422, "IDEMPOTENCY_KEY_REUSED")


def _connect(server: Server) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _head(n_bytes: int, *more: str) -> bytes:
    lines = [
        "POST /v1/datasets HTTP/1.1",
        "Host: x",
        f"Content-Type: {NPY}",
        f"Content-Length: {n_bytes}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_client_may_ask_before_it_sends(server: Server) -> None:
    body = packing.npy(POINTS)
    with _connect(server) as connection:
        connection.sendall(_head(len(body), "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 201 ")
    with _connect(server) as connection:
        connection.sendall(_head(1 << 60, "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_connection_that_breaks_leaves_nothing(http: httpx.Client, server: Server, order: Any) -> None:
    before = http.get("/v1/datasets?page_size=1").json()["items"]
    store = server.data_dir / "datasets"
    files = set(store.glob("files/*/*"))
    body = packing.npy(np.zeros((1 << 19, 4), order=order))
    with _connect(server) as connection:
        connection.sendall(_head(len(body)) + body[: len(body) // 2])
        until(lambda: any(_open_in(server, store / "drafts")))
    until(lambda: not any(_open_in(server, store / "drafts")))
    assert list((store / "drafts").iterdir()) == []
    assert set(store.glob("files/*/*")) == files
    assert http.get("/v1/datasets?page_size=1").json()["items"] == before


def _open_in(server: Server, folder: Any) -> list[str]:
    """What the server has open in a folder, with or without a name."""
    found = []
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found
