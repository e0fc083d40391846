"""More requests than can be answered: those too many are turned away at once, and the others are answered."""

import asyncio
import json
import os
import select
import socket
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from service.admitting import admitting
from service.api.admission import ALWAYS, WaitingLine
from service.app import create_app
from service.protocol import protocol
from service.settings import Settings
from tests.serving import Server, serving

N_CROWD = 150
SECONDS = 1.5
# The first ones of a crowd wait their turn before anybody knows how long that takes: on a busy machine, long.
FIRST_SECONDS = 30.0


class Full:
    """Lets nobody in but those who ask how the service is."""

    is_crowded = True

    def turns_away(self, path: str) -> bool:
        return path not in ALWAYS

    def let_in(self, state: dict[str, Any]) -> None:
        pass


class Connection:
    """Speaks HTTP as it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def answer(self, *, body: bool = True) -> tuple[int, dict[str, str], Any]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        content = await self._reader.readexactly(int(headers["content-length"])) if body else b"null"
        return int(status.split()[1]), headers, json.loads(content)

    async def ask(self, *pieces: bytes, **how: bool) -> tuple[int, dict[str, str], Any]:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)
        return await self.answer(**how)

    async def ends(self) -> bool:
        return await self._reader.read() == b""


@asynccontextmanager
async def full_server(tmp_path: Path) -> AsyncIterator[Any]:
    """Yields what opens a connection to a server that lets nobody in."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    settings = Settings(data_dir=tmp_path)
    config = uvicorn.Config(app, log_config=None, access_log=False, ws="none")
    config.load()
    made = admitting(protocol(settings), Full())  # type: ignore[arg-type]
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: made(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    opened: list[Connection] = []

    async def open_one() -> Connection:
        opened.append(Connection(*await asyncio.open_connection(*server.sockets[0].getsockname())))
        return opened[-1]

    yield open_one
    for one in opened:
        one.writer.close()
        await one.writer.wait_closed()
    server.close()
    await server.wait_closed()


def asked(method: str = "GET", path: str = "/v1/fits", body: bytes = b"", **headers: str) -> bytes:
    given = {"Host": "here", **headers} | ({"Content-Length": str(len(body))} if body else {})
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def assert_turned_away(answer: tuple[int, dict[str, str], Any], path: str = "/v1/fits") -> str:
    status, headers, problem = answer
    assert status == 503
    assert headers["retry-after"] == "1"
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert (problem["code"], problem["status"], problem["instance"]) == ("OVERLOADED", 503, path)
    assert problem["request_id"] == headers["x-request-id"]
    return str(problem["request_id"])


def test_who_is_turned_away_is_told_so_however_the_request_came(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with full_server(tmp_path) as opened:
            one = await opened()
            ids = set()
            for _ in range(3):  # the first makes a request of its bytes, the others do not
                ids.add(assert_turned_away(await one.ask(asked())))
                ids.add(assert_turned_away(await one.ask(asked("POST", "/v1/fits?x=1", b'{"a": 1}'))))
            assert len(ids) == 6
            assert assert_turned_away(await one.ask(asked(X_Request_Id="mine"))) == "mine"
            assert_turned_away(await one.ask(asked(path="/v1/f%22%C3%A9")), '/v1/f"é')
            assert_turned_away(await one.ask(asked(path="/v1/mixs_0123456789")), "/v1/mixs_...")
            # Who asks how the service is gets an answer all the while.
            assert (await one.ask(asked(path="/livez")))[0] == 200
            assert (await one.ask(asked(path="/readyz")))[0] == 200
            assert_turned_away(await one.ask(asked()))
            assert (await one.ask(asked("HEAD"), body=False))[0] == 503
            assert_turned_away(await one.ask(asked()))
            assert_turned_away(await one.ask(asked(Connection="close")))
            assert await one.ends()

    asyncio.run(scenario())


def test_a_body_is_never_taken_for_the_next_request(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with full_server(tmp_path) as opened:
            one = await opened()
            hidden = asked(path="/v1/hidden")
            for _ in range(2):
                whole = asked("POST", "/v1/outer", hidden)
                assert_turned_away(await one.ask(whole[: -len(hidden)]), "/v1/outer")
                one.writer.write(hidden)
                await one.writer.drain()
                assert_turned_away(await one.ask(asked(path="/v1/next")), "/v1/next")
            # Two at once, one in two pieces, one in chunks: each gets its answer.
            one.writer.write(asked(path="/v1/a") + asked(path="/v1/b"))
            assert_turned_away(await one.answer(), "/v1/a")
            assert_turned_away(await one.answer(), "/v1/b")
            request = asked(path="/v1/c")
            assert_turned_away(await one.ask(request[:9], request[9:]), "/v1/c")
            chunked = asked("POST", "/v1/d", Transfer_Encoding="chunked") + b"2\r\n{}\r\n0\r\n\r\n"
            assert_turned_away(await one.ask(chunked), "/v1/d")
            assert_turned_away(await one.ask(asked(path="/v1/e")), "/v1/e")
            waiting = asked("POST", Expect="100-continue", Content_Length="5")
            assert_turned_away(await one.ask(waiting))
            assert await one.ends()

    asyncio.run(scenario())


def test_a_line_is_too_long_by_how_long_it_takes() -> None:
    line = WaitingLine(1.0)
    assert not line.is_too_long(10_000)  # nobody knows yet
    line.learn(1, 5.0)  # a stall at the front says nothing
    assert not line.is_too_long(10_000)
    line.learn(10, 0.1)
    assert not line.is_too_long(100)
    assert line.is_too_long(101)
    for _ in range(50):
        line.learn(40, 40.0)
    assert line.is_too_long(32)
    assert not line.is_too_long(31)  # so few are no crowd
    for _ in range(50):
        line.learn(20, 0.02)
    assert not line.is_too_long(900)


def test_a_process_lives_whatever_its_database_does(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        app = create_app(Settings(data_dir=tmp_path, database_url=url))
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://in.process")
        # One more than there are threads for, and all wait for the database.
        waiting = [asyncio.create_task(http.get("/readyz")) for _ in range(9)]
        while not select.select([listener], [], [], 0)[0]:
            await asyncio.sleep(0.01)
        assert (await http.get("/livez")).status_code == 200
        assert not any(task.done() for task in waiting)
        listener.close()
        assert {(await task).status_code for task in waiting} == {503}
        await http.aclose()

    with socket.create_server(("127.0.0.1", 0)) as listener:  # it never says a word
        asyncio.run(scenario(f"postgresql+psycopg://127.0.0.1:{listener.getsockname()[1]}/none"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that soon has enough: one thread, and nobody waits for long."""
    settings = {"request_threads": 1, "max_queueing_seconds": 0.02, "log_level": "warning"}
    with serving(tmp_path_factory.mktemp("crowded"), workers=0, **settings) as running:
        yield running


async def crowd(server: Server, n: int, *, too_many: bool = False) -> tuple[list[float], list[float], int]:
    """How long those who were answered and those who were refused waited, and how often it was well.

    It is looked at for `SECONDS`: where they are too many, from the first one on who is refused.
    """
    host, port = server.url.removeprefix("http://").split(":")
    until = time.monotonic() + (FIRST_SECONDS if too_many else SECONDS)
    served: list[float] = []
    refused: list[float] = []
    n_well = 0

    async def client() -> None:
        nonlocal until
        one = Connection(*await asyncio.open_connection(host, int(port)))
        while time.monotonic() < until:
            begun = time.perf_counter()
            status, _, content = await one.ask(asked(path="/v1/mixtures"))
            assert status == 200 or content["code"] == "OVERLOADED", content
            if status != 200 and too_many and not refused:
                until = time.monotonic() + SECONDS
                served.clear()
            (served if status == 200 else refused).append(time.perf_counter() - begun)
        one.writer.close()
        await one.writer.wait_closed()

    async def probe() -> None:
        nonlocal n_well
        one = Connection(*await asyncio.open_connection(host, int(port)))
        while time.monotonic() < until:
            assert (await one.ask(asked(path="/livez")))[0] == 200
            assert (await one.ask(asked(path="/readyz")))[2]["checks"]["database"] == "ok"
            n_well += 1
        one.writer.close()
        await one.writer.wait_closed()

    await asyncio.gather(probe(), *(client() for _ in range(n)))
    return served, refused, n_well


def test_a_crowd_is_turned_away_and_the_others_are_answered_as_before(server: Server) -> None:
    alone, none, _ = asyncio.run(crowd(server, 4))
    among, refused, n_well = asyncio.run(crowd(server, N_CROWD, too_many=True))
    after, late, _ = asyncio.run(crowd(server, 4))
    assert none == late == []
    assert refused
    # The crowd's clients do not wait when refused, as they are told to, and need the machine as well.
    assert len(among) > len(alone) / 3, (len(among), len(alone))
    assert statistics.median(refused) < statistics.median(among)
    assert len(after) > len(alone) / 3
    assert n_well
    with server.client() as http:
        figures = http.get("/metrics").text
    n_refused = sum(
        float(line.split()[1])
        for line in figures.splitlines()
        if line.startswith("mixserve_http_refused_total")
    )
    assert n_refused == len(refused)
    assert "requests were turned away in a second" in server.log
    assert "Traceback" not in server.log


def test_more_than_one_new_connection_is_taken_in_a_turn_of_the_loop(server: Server) -> None:
    process, port = Path(f"/proc/{server.process.pid}"), int(server.url.rpartition(":")[2])
    rows = [line.split() for line in (process / "net" / "tcp").read_text().splitlines()[1:]]
    listening = [row[9] for row in rows if row[3] == "0A" and int(row[1].partition(":")[2], 16) == port]
    assert len(listening) == 1
    doors = [file for file in (process / "fd").iterdir() if os.readlink(file) == f"socket:[{listening[0]}]"]
    assert len(doors) >= 16  # libuv takes one from each
