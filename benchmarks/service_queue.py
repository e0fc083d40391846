"""What the queue costs: fits that take no time, submits, the wait for a start, heartbeats of a busy worker.

    python -m benchmarks.service_queue --database sqlite
    python -m benchmarks.service_queue --database postgresql --ended 1000000

Prints lines of JSON, one for each figure. `--ended` measures once more beside so many ended fits, each with a
result, a mixture and events: 6.4 kB on SQLite, and minutes for a million. Commits reach the disk on both
databases.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import func, select, text

from service.storage.database import Database
from service.storage.tables import FitRow, Table
from tests.conftest import running_postgresql
from tests.serving import END_SECONDS, GOLD, Server, command, environment, serving, until

GOALS = {"empty_fits": 100.0, "submits": 300.0, "start_sqlite": 250.0, "start_postgresql": 50.0}
N_CLIENTS = 16
# Fits written in one transaction; what is copied: a table, the column that tells copies apart, its prefix.
AT_ONCE = 50_000
COPIED = (("fits", "id", "fit"), ("fit_events", "fit_id", "fit"), ("mixtures", "id", "mix"))
BUSY = {
    "dataset": {"gold": GOLD, "n_samples": 500_000},
    "n_components": 20,
    "n_init": 4,
    "max_steps": 10**6,
    "tolerance": 0,
}


class Bench:
    """A folder and a database, in which services are started one after the other."""

    def __init__(self, folder: Path, url: str, name: str) -> None:
        self.folder = folder
        self.name = name
        self.url = url or f"sqlite:///{folder / 'mixserve.sqlite3'}"
        self.settings: dict[str, Any] = {"database_url": self.url, "max_queued_fits": 10**7}
        self.database = Database(self.url)
        self.beside = 0

    def serving(self, workers: int, **settings: Any) -> Any:
        """Runs a server."""
        return serving(self.folder, workers=workers, **self.settings | settings)

    def say(self, figure: str, **values: Any) -> None:
        """Prints a figure."""
        line: dict[str, Any] = {"benchmark": "service_queue", "figure": figure, "database": self.name}
        line |= {"ended_fits_beside": self.beside, **values, **_surroundings()}
        print(json.dumps(line), flush=True)

    @contextmanager
    def workers(self, n: int) -> Iterator[None]:
        """Runs workers alone."""
        surroundings = environment(data_dir=self.folder, **self.settings)
        started = [
            subprocess.Popen(command("worker"), env=surroundings, stderr=subprocess.DEVNULL) for _ in range(n)
        ]
        try:
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(END_SECONDS)


def smallest(http: httpx.Client) -> dict[str, Any]:
    """Returns a request whose work is next to nothing."""
    dataset = http.post("/v1/datasets", json={"points": [[0.0], [1.0]]}).raise_for_status().json()
    return {"dataset": {"id": dataset["id"]}, "n_components": 1, "n_init": 1, "max_steps": 1}


class _Client(asyncio.Protocol):
    """A client that sends the same bytes again and again: what it costs itself is not the server's."""

    def __init__(self, request: bytes, n: int, done: asyncio.Future[None]) -> None:
        self._request, self._left, self._done = request, n, done
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end_of_head, body = self._answer.partition(b"\r\n\r\n")
        if not end_of_head:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self._done.set_exception(SystemExit(f"a submit got {head.splitlines()[0]!r}"))
            return
        self._answer, self._left = b"", self._left - 1
        if self._left:
            self._transport.write(self._request)
        else:
            self._transport.close()
            self._done.set_result(None)


def submit(server: Server, body: dict[str, Any], n: int) -> float:
    """Returns how many submits a second came through, of `n` by sixteen clients at once."""
    host, port = server.url.removeprefix("http://").split(":")
    payload = json.dumps(body).encode()
    head = f"POST /v1/fits HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload

    async def all_of_them() -> float:
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in range(N_CLIENTS)]
        begun = time.perf_counter()
        for end in ends:
            await loop.create_connection(
                lambda end=end: _Client(request, n // N_CLIENTS, end),  # type: ignore[misc]
                host,
                int(port),
            )
        await asyncio.gather(*ends)
        return n // N_CLIENTS * N_CLIENTS / (time.perf_counter() - begun)

    return asyncio.run(all_of_them())


def measure_throughput(bench: Bench, n: int) -> None:
    """Submits, then empties the queue with one worker and with two."""
    for n_workers in (1, 2):
        with bench.serving(0) as server, server.client() as client:
            rate = submit(server, smallest(client), n)
            bench.say("submits", per_second=round(rate, 1), clients=N_CLIENTS, goal=GOALS["submits"])
        with bench.database.read() as session:
            first = session.scalar(select(func.min(FitRow.id)).where(FitRow.status == "queued"))
        with bench.workers(n_workers):
            until(lambda: _n_queued(bench.database) == 0, seconds=120, pause=0.5)
        with bench.database.read() as session:
            ended = session.scalars(
                select(FitRow.finished_at).where(FitRow.id >= first, FitRow.finished_at.is_not(None))
            )
            times = sorted(moment.timestamp() for moment in ended if moment is not None)
        # Both are at work by then, and still.
        early, late = times[4 * len(times) // 10], times[9 * len(times) // 10]
        rate = (9 * len(times) // 10 - 4 * len(times) // 10) / (late - early)
        bench.say("empty fits", per_second=round(rate, 1), workers=n_workers, goal=GOALS["empty_fits"])


def _n_queued(database: Database) -> int:
    with database.read() as session:
        query = select(func.count()).select_from(FitRow).where(FitRow.status.in_(("queued", "running")))
        return session.scalar(query) or 0


def measure_start(bench: Bench, n: int) -> None:
    """Submits to an idle service, and looks when the fit started, by the database's clock."""
    waits = []
    with bench.serving(1) as server, server.client() as client:
        body = smallest(client)
        for _ in range(n + 3):
            fit = client.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).json()
            created, started = (datetime.fromisoformat(fit[name]) for name in ("created_at", "started_at"))
            waits.append(1000 * (started - created).total_seconds())
    waits = sorted(waits[3:])
    bench.say(
        "start",
        median_milliseconds=round(statistics.median(waits), 1),
        p99_milliseconds=round(waits[min(len(waits) - 1, int(0.99 * len(waits)))], 1),
        n=n,
        goal=GOALS[f"start_{bench.name}"],
    )


def measure_heartbeats(bench: Bench, seconds: float) -> None:
    """Looks how late heartbeats come while a fit burns all cores."""
    lease = 5.0
    due = lease / 5
    with bench.serving(1, lease_seconds=lease) as server, server.client() as client:
        path = client.post("/v1/fits", json=BUSY).headers["location"]
        until(lambda: client.get(path).json()["progress"], seconds=60)
        seen: list[float] = []
        end = time.monotonic() + seconds
        query = select(FitRow.lease_expires_at).where(FitRow.status == "running")
        while time.monotonic() < end:
            with bench.database.read() as session:
                expires = session.scalar(query)
            if expires is not None and (not seen or expires.timestamp() != seen[-1]):
                seen.append(expires.timestamp())
            time.sleep(0.02)
        client.post(f"{path}/cancel")
    gaps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    bench.say(
        "heartbeats",
        due_every_seconds=due,
        longest_gap_seconds=round(max(gaps), 3),
        median_gap_seconds=round(statistics.median(gaps), 3),
        n=len(gaps),
    )


def add_ended(bench: Bench, n: int) -> None:
    """Writes copies of a fit that has ended, with its request, its result, its mixture and its events."""
    with bench.serving(1) as server, server.client() as client:
        asked = {"dataset": {"gold": GOLD, "n_samples": 1000, "seed": 0}, "n_components": 3, "seed": 0}
        fit = client.post("/v1/fits", json=asked, headers={"Prefer": "wait=60"}).raise_for_status().json()
        assert fit["status"] == "succeeded", fit
    padded = "printf('%022d', i)" if bench.database.is_sqlite else "lpad(i::text, 22, '0')"
    for first in range(0, n, AT_ONCE):
        numbers = f"generate_series({first + 1}, {min(n, first + AT_ONCE)}) AS s(i)"
        if bench.database.is_sqlite:
            numbers = (
                f"(WITH RECURSIVE s(i) AS (SELECT {first + 1} UNION ALL SELECT i + 1 FROM s"
                f" WHERE i < {min(n, first + AT_ONCE)}) SELECT i FROM s)"
            )
        with bench.database.write() as session:
            for table, key, prefix in COPIED:
                # The time in an identifier comes first: copies are older than any fit to come.
                made = {key: f"'{prefix}_0000' || {padded}"}
                if table == "mixtures":
                    made["fit_id"] = f"'fit_0000' || {padded}"
                session.execute(
                    text(_copying(bench, table, made, numbers, prefix == "mix")), {"fit": fit["id"]}
                )
    with bench.database.write() as session:
        session.execute(text("ANALYZE"))
    bench.beside += n


def _copying(bench: Bench, table: str, made: dict[str, str], numbers: str, by_fit: bool) -> str:
    """Returns the statement that copies the rows of one fit in a table, with other identifiers."""
    names = [column.name for column in Table.metadata.tables[table].columns]
    quoted = ", ".join(f'"{name}"' for name in names)
    values = ", ".join(made.get(name, f'one."{name}"') for name in names)
    of_fit = "fit_id" if by_fit or table == "fit_events" else "id"
    copies = f"SELECT {values} FROM {numbers}, {table} AS one WHERE one.{of_fit} = :fit"
    return f"INSERT INTO {table} ({quoted}) {copies}"


def _surroundings() -> dict[str, Any]:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": next(named, platform.processor()),
            "cores": os.cpu_count(),
            "load_1m": round(os.getloadavg()[0], 2),
        },
        "versions": {name: version(name) for name in ("mixserve", "torch", "fastapi", "sqlalchemy")}
        | {"python": platform.python_version()},
    }


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--ended", type=int, default=0, help="measure again beside so many ended fits")
    parser.add_argument("--fits", type=int, default=960)
    parser.add_argument("--starts", type=int, default=100)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = ""
        if given.database == "postgresql":
            url = stack.enter_context(running_postgresql()).create(migrated=False)
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                for setting in ("fsync", "full_page_writes"):
                    connection.execute(f"ALTER SYSTEM SET {setting} = on")
                connection.execute("SELECT pg_reload_conf()")
        bench = Bench(folder, url, given.database)
        stack.callback(bench.database.close)
        measure_start(bench, given.starts)
        measure_throughput(bench, given.fits)
        measure_heartbeats(bench, 15.0)
        if given.ended:
            add_ended(bench, given.ended)
            measure_start(bench, given.starts)
            measure_throughput(bench, given.fits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
