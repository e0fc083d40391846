"""A thousand clients that wait for one fit: they hold no thread each, and starve nobody."""

import asyncio
import re
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.acceptance.test_service import begun
from tests.conftest import Backend
from tests.serving import Server, serving

N_WAITING = 500
N_STREAMING = 500
N_PROBES = 60
POOL_SIZE = Settings.model_fields["request_threads"].default


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Room for a thousand connections, here and in the server, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    url = ""
    if backend == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    # A thousand that come in one second may be too many for a busy machine; this is of those who are in.
    with serving(tmp_path, database_url=url, max_queueing_seconds=60) as running:
        yield running


def _n_threads(server: Server) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"Threads:\s+(\d+)", status)[0])


async def _probe(http: httpx.AsyncClient) -> float:
    """Returns the median seconds of small requests of three kinds, one after the other."""
    taken = []
    for number in range(N_PROBES):
        path = ("/v1/mixtures", "/v1/workers", "/readyz")[number % 3]
        asked = time.perf_counter()
        assert (await http.get(path)).status_code == 200
        taken.append(time.perf_counter() - asked)
    return statistics.median(taken)


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _ask(server: Server, path: str, header: str) -> Connection:
    """Returns a connection on which the answer will come; httpx would cost more than the server does."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def _rest(connection: Connection) -> bytes:
    """Returns all that comes until the server closes the connection."""
    reader, writer = connection
    content = await reader.read()
    writer.close()
    await writer.wait_closed()
    return content


async def _crowd(server: Server, path: str) -> list[asyncio.Task[bytes]]:
    """Returns what each of a thousand clients will have read at the end, once all streams have begun."""
    waiting = [await _ask(server, path, "Prefer: wait=60") for _ in range(N_WAITING)]
    streaming = [
        await _ask(server, f"{path}/events", "Accept: text/event-stream") for _ in range(N_STREAMING)
    ]
    for reader, _ in streaming:
        await reader.readuntil(b"retry: ")
    return [asyncio.create_task(_rest(connection)) for connection in (*waiting, *streaming)]


def test_a_thousand_waiting_clients_starve_nobody(server: Server) -> None:
    async def scenario() -> tuple[float, float, int, int, list[bytes]]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120, trust_env=False) as http:
            await asyncio.gather(*(http.get("/v1/mixtures") for _ in range(60)))  # its threads are there
            alone, threads = await _probe(http), _n_threads(server)
            answers = await _crowd(server, path)
            among, threads_among = await _probe(http), _n_threads(server)
            await http.post(f"{path}/cancel")
            ended = await asyncio.gather(*answers)
            # Others may load the machine for a while: it counts as it was when it was slower.
            return max(alone, await _probe(http)), among, threads, threads_among, ended

    with server.client() as http:
        path = begun(http)
    alone, among, threads, threads_among, ended = asyncio.run(scenario())
    assert all(b'"status":"cancelled"' in answer for answer in ended)
    # One more of the threads for short requests may have come, but none for those who wait.
    assert threads_among - threads <= POOL_SIZE
    # The fit's progress is told to five hundred streams all the while, by the same process.
    assert among < 5 * alone, (alone, among)
    assert "Traceback" not in server.log


def test_a_server_that_is_told_to_end_sends_a_thousand_clients_away(server: Server) -> None:
    async def scenario() -> tuple[int, float, list[bytes]]:
        answers = await _crowd(server, path)
        told = time.monotonic()
        server.process.terminate()
        status = await asyncio.to_thread(server.process.wait, 30)
        return status, time.monotonic() - told, await asyncio.gather(*answers)

    with server.client() as http:
        path = begun(http)
    status, seconds, ended = asyncio.run(scenario())
    assert status == 0
    assert seconds < 10  # the contract's
    assert all(b'"status":"running"' in answer for answer in ended[:N_WAITING])
    assert all(b"retry: " in answer[-40:] for answer in ended[N_WAITING:])
    assert "Traceback" not in server.log
