"""Bytes that are no requests, or made to hurt: refused or cut off, and never at the cost of anybody else."""

import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import numpy as np
import pytest

from service.client.points import as_npy
from tests.hostile.corpus import BODY, CHUNKED, HALVES, HEADERS, HIDDEN, MALFORMED, PATHS, POST, WHOLE
from tests.hostile.wire import connected, request, rest, said, send, statuses
from tests.serving import GOLD, Server, serving, until
from tests.watched import Watched

HEAD_SECONDS, BODY_SECONDS = 1.0, 1.5
MEGABYTE = 1 << 20
IDLE = "mixserve_http_requests_in_progress 1.0"  # it is the one that asks


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "head_seconds": HEAD_SECONDS,
        "body_seconds": BODY_SECONDS,
        "max_body_bytes": 64 * MEGABYTE,
        "max_queueing_seconds": 60,  # whatever else the machine does
    }
    with serving(tmp_path_factory.mktemp("data"), workers=0, **settings) as running:
        yield running
        assert "Traceback" not in running.log
        assert '"level":"error"' not in running.log.replace(" ", "")
        until(lambda: IDLE in httpx.get(f"{running.url}/metrics", trust_env=False).text)


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def mixture_id(http: httpx.Client) -> str:
    return str(http.post("/v1/mixtures", json=GOLD).raise_for_status().json()["id"])


@pytest.fixture(scope="module", autouse=True)
def neighbour(server: Server, mixture_id: str) -> Iterator[Watched]:
    """Somebody else, who is answered all the while."""
    with Watched(server, mixture_id) as watched:
        yield watched


def assert_refused(answer: bytes) -> None:
    assert answer == b"" or all(400 <= status < 500 for status in statuses(answer)), answer[:300]
    assert len(statuses(answer)) <= 1, answer


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_request(server: Server, name: str) -> None:
    assert_refused(said(server, MALFORMED[name]))


@pytest.mark.parametrize("name", ["two Hosts", "no Host", "a length and chunks", "a chunk below zero"])
def test_a_refusal_says_what_it_is(server: Server, name: str) -> None:
    head, _, body = said(server, MALFORMED[name]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    problem = httpx.Response(400, content=body).json()
    assert problem["code"] == "BAD_REQUEST"
    assert problem["request_id"].encode() in head
    assert server.url not in problem["instance"]
    until(lambda: problem["request_id"] in server.log)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40].decode("latin-1"))
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_paths_that_lead_nowhere(server: Server, method: bytes, path: bytes) -> None:
    answer = said(server, request(path, method=method))
    assert_refused(answer)
    assert b"root:" not in answer
    assert b"import" not in answer


def test_headers_of_twenty_megabytes_are_not_taken_in(server: Server, mixture_id: str) -> None:
    piece = b"a" * MEGABYTE
    many = b"".join(b"X-%d: b\r\n" % number for number in range(100_000))
    openings = {
        "one header": (b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: ", piece),
        "many headers": (b"GET /livez HTTP/1.1\r\nHost: a\r\n", many),
        "a header's name": (b"GET /livez HTTP/1.1\r\nHost: a\r\n", piece),
        "the path": (b"GET /", piece),
        "blank lines": (b"", b"\r\n" * (MEGABYTE // 2)),
        "a chunk's extension": (CHUNKED + b"1;a=", piece),
        "one trailer": (CHUNKED + b"1\r\n[\r\n0\r\nX-A: ", piece),
        "many trailers": (CHUNKED + b"1\r\n[\r\n0\r\n", many),
    }
    with Watched(server, mixture_id) as watched:
        for name, (opening, more) in openings.items():
            with connected(server) as connection:
                n_sent = send(connection, [opening, *[more] * (20 * MEGABYTE // len(more))])
                assert n_sent < 16 * MEGABYTE, name
                assert_refused(rest(connection))
    assert watched.growth < 16 * MEGABYTE


def test_headers_that_are_a_little_too_large_are_told_so(server: Server) -> None:
    assert statuses(said(server, request(b"/livez", b"X-A: " + b"a" * 60_000))) == [200]
    assert statuses(said(server, request(b"/livez", b"X-A: " + b"a" * 65_600))) == [431]


def _drip(connection: socket.socket, piece: bytes, until_closed: threading.Event) -> None:
    while not until_closed.wait(0.1):
        try:
            connection.sendall(piece)
        except OSError:
            return


@pytest.fixture
def asked(mixture_id: str) -> dict[str, bytes]:
    """Requests that have begun, each going to somewhere else in the service."""
    length = b"Content-Length: 4000\r\n\r\n"
    json = b"HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    question = f"POST /v1/mixtures/{mixture_id}/log-density ".encode() + json
    refused = b"Content-Length: %d\r\n\r\n" % (65 * MEGABYTE)
    return {
        "nothing": b"",
        "a first line": b"GET /livez",
        "headers": b"GET /livez HTTP/1.1\r\nHost: a\r\nX-A: ",
        "headers after an answer": HIDDEN + b"GET /livez HTTP/1.1\r\nX-A: ",
        "a dataset": POST + length + b'{"points": [[',
        "a dataset in chunks": CHUNKED + b"1\r\n{\r\n",
        "half a chunk": CHUNKED + b"ff00\r\n{",
        "a mixture": b"POST /v1/mixtures " + json + length + b"{",
        "a fit": b"POST /v1/fits " + json + length + b"{",
        "a quick question": question + length + b"{",
        "a long question": question + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        "a body that nobody reads": b"GET /livez " + json + length + b"{",
        "a body that was refused": POST + refused + b"{",
    }


@pytest.mark.parametrize("piece", [b"", b"9"], ids=["silent", "dripping"])
def test_whoever_is_too_slow_is_cut_off(
    server: Server, http: httpx.Client, asked: dict[str, bytes], piece: bytes
) -> None:
    over = threading.Event()
    with ExitStack() as stack:
        connections, threads = {}, []
        for name, begun in asked.items():
            connections[name] = connection = stack.enter_context(connected(server))
            connection.sendall(begun)
            if piece:
                threads.append(threading.Thread(target=_drip, args=(connection, piece, over)))
                threads[-1].start()
        answers = {name: statuses(rest(connection)) for name, connection in connections.items()}
        over.set()
        for thread in threads:
            thread.join()
    assert answers.pop("nothing") in ([], [400])
    assert answers.pop("headers after an answer") == [200, 408]
    assert answers.pop("a body that nobody reads") == [200]
    assert answers.pop("a body that was refused") == [413]
    if piece:  # those read as the size of a chunk
        assert answers.pop("a dataset in chunks") in ([408], [400])
        assert answers.pop("a long question") in ([408], [400])
    assert answers == {name: [408] for name in answers}


def test_whoever_keeps_the_pace_may_take_long(server: Server) -> None:
    rows = b"[1.0]," * 100
    with connected(server) as connection:
        connection.sendall(CHUNKED + b"d\r\n" + b'{"points": [ ' + b"\r\n")
        begun = time.monotonic()
        while time.monotonic() < begun + 2 * BODY_SECONDS:
            connection.sendall(b"%x\r\n" % len(rows) + rows + b"\r\n")
            time.sleep(0.05)
        connection.sendall(b"7\r\n[1.0]]}\r\n0\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 201 ")


def test_slow_uploads_keep_nobody_from_uploading(server: Server, http: httpx.Client) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(80)]
        for connection in slow:
            connection.sendall(CHUNKED + b"ff00\r\n{")
        assert http.post("/v1/datasets", json={"points": [[1.0]]}).status_code == 201
        assert http.post("/v1/mixtures", json=GOLD).status_code == 201
        assert {tuple(statuses(rest(connection))) for connection in slow} == {(408,)}


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/mixtures/{}/log-density"])
def test_uploads_that_become_slow_keep_nobody_from_sending(
    server: Server, http: httpx.Client, mixture_id: str, path: str
) -> None:
    row = b"0.25,0.75\r\n"
    begin = row * (MEGABYTE // 2 // len(row))
    head = f"POST {path.format(mixture_id)} HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\n".encode()
    head += b"Content-Length: %d\r\n\r\n" % (60 * MEGABYTE)
    over = threading.Event()
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(server)) for _ in range(40)]
        threads = [threading.Thread(target=_drip, args=(connection, b"1" * 20, over)) for connection in slow]
        for connection, thread in zip(slow, threads, strict=True):
            connection.sendall(head + begin)
            thread.start()
        whole = {"content": begin, "headers": {"Content-Type": "text/csv"}}
        for other in ("/v1/datasets", f"/v1/mixtures/{mixture_id}/log-density"):
            assert http.post(other, **whole).is_success  # type: ignore[arg-type]
        over.set()
        for thread in threads:
            thread.join()


def test_who_does_not_read_an_answer_is_cut_off(server: Server, http: httpx.Client) -> None:
    made = http.post("/v1/datasets", json={"gold": GOLD, "n_samples": 1_000_000}).json()
    with connected(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(request(f"/v1/datasets/{made['id']}/points".encode()))
        until(lambda: f"/v1/datasets/{made['id']}/points" in server.log)
        assert len(rest(connection)) < 16_000_000
    http.delete(f"/v1/datasets/{made['id']}").raise_for_status()


@pytest.mark.parametrize("name", HALVES)
def test_sockets_that_are_closed_half_way(server: Server, http: httpx.Client, name: str) -> None:
    n_before = len(http.get("/v1/datasets?page_size=200").json()["items"])
    with connected(server) as connection:
        connection.sendall(HALVES[name])
        connection.shutdown(socket.SHUT_WR)
        assert_refused(rest(connection))
    with connected(server) as connection:  # with a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(HALVES[name])
    assert len(http.get("/v1/datasets?page_size=200").json()["items"]) == n_before


def test_pipelined_requests_are_few(server: Server, http: httpx.Client) -> None:
    fit = http.post("/v1/fits", json={"dataset": {"gold": GOLD}, "n_components": 1}).json()
    events = f"GET /v1/fits/{fit['id']}/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(WHOLE * 3 + HIDDEN)
        answer = b""
        while not answer.endswith(b'"checks":{}}'):
            answer += connection.recv(1 << 16)
        assert statuses(answer) == [201, 201, 201, 200]
        connection.sendall(events.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        assert send(connection, [HIDDEN * 1000] * 1000) < 1000 * 1000 * len(HIDDEN)
    with connected(server) as connection:  # the end of this connection is seen by who is served, and not last
        connection.sendall(events.encode() + HIDDEN)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    until(lambda: IDLE in http.get("/metrics").text)
    http.post(f"/v1/fits/{fit['id']}/cancel").raise_for_status()


def test_requests_behind_large_bodies_in_the_same_pieces(server: Server, http: httpx.Client) -> None:
    points = np.random.default_rng(0).standard_normal((1 << 17, 2))
    body = as_npy(points)
    head = b"POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-npy\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = HIDDEN.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
    sent = [whole + last, whole + whole + last]
    with connected(server) as one, connected(server) as other:
        for start in range(0, len(sent[1]), 100_000):  # in turns, for they are received in the same place
            one.sendall(sent[0][start : start + 100_000])
            other.sendall(sent[1][start : start + 100_000])
        answers = [rest(one), rest(other)]
    assert [statuses(answer) for answer in answers] == [[201, 200], [201, 201, 200]]
    made = re.findall(rb'"id":"(dat_\w+)"[^}]*?"sha256":"(\w+)"', b"".join(answers))
    assert len(made) == 3
    assert len({sha256 for _, sha256 in made}) == 1
    for dataset_id, _ in made:
        path = f"/v1/datasets/{dataset_id.decode()}"
        answer = http.get(f"{path}/points?offset=130000&limit=1000").raise_for_status().json()
        assert answer["points"] == points[130_000:131_000].tolist()
        http.delete(path).raise_for_status()


@pytest.mark.parametrize("name", HEADERS)
def test_headers_made_to_confuse(server: Server, http: httpx.Client, mixture_id: str, name: str) -> None:
    fit = http.post("/v1/fits", json={"dataset": {"points": [[1.0]]}, "n_components": 1}).json()["id"]
    http.post(f"/v1/fits/{fit}/cancel").raise_for_status()
    question = f"/v1/mixtures/{mixture_id}/log-density".encode()
    length = b"Content-Length: %d" % len(BODY)
    for method, path, body in [
        (b"POST", b"/v1/datasets", BODY),
        (b"POST", question, BODY),
        (b"POST", b"/v1/mixtures", BODY),
        (b"GET", b"/v1/mixtures/" + mixture_id.encode(), b""),
        (b"GET", f"/v1/fits/{fit}/events".encode(), b""),
        (b"GET", b"/static/page/page.js", b""),
        (b"GET", b"/", b""),
    ]:
        headers = HEADERS[name] + ([length] if body else [])
        answer = said(server, request(path, *headers, method=method, body=body))
        assert all(status < 500 for status in statuses(answer)), answer[:500]
        assert len(statuses(answer)) <= 1, answer
        assert b"evil" not in answer
