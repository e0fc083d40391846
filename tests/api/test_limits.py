"""Limits per owner, on two replicas of the API: what is beyond gets 429, and is told when to come back."""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
from sqlalchemy import select

from service.storage import keys, own_limits, queue
from service.storage.database import Database
from service.storage.owner_limits import device_seconds_today
from service.storage.tables import DeviceUseRow
from tests.api.test_problems import assert_problem
from tests.serving import Server, serving
from tests.storage.making import claimed

PER_SECOND = 2.0
BURST = 60
POINTS = {"points": [[1.0, 2.0], [3.0, 4.0]]}  # 32 bytes


@dataclass(frozen=True)
class Replicas:
    """Two servers on one database."""

    servers: list[Server]
    database: Database
    stack: ExitStack

    def clients(self, owner: str, **limits: float) -> list[httpx.Client]:
        """Clients of one owner at each replica; with limits of its own, in place of what holds for all."""
        with self.database.write() as session:
            key, _ = keys.create(session, "a key", owner, {"read", "write"}, None)
            for name, value in limits.items():
                own_limits.give(session, owner, name, value)
        headers = {"Authorization": f"Bearer {key}"}
        return [self.stack.enter_context(server.client(headers=headers)) for server in self.servers]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def replicas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    data_dir = tmp_path_factory.mktemp("limited")
    url = f"sqlite:///{data_dir / 'mixserve.sqlite3'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    limited = {
        "owner_requests_per_second": PER_SECOND,
        "owner_request_burst": BURST,
        "owner_max_queued_fits": 2,
        "owner_max_stored_bytes": 100,
        "owner_max_device_seconds": 3600,
    }
    with ExitStack() as stack:
        start = partial(serving, data_dir, workers=0, database_url=url, auth="keys", **limited)
        servers = [stack.enter_context(start()) for _ in range(2)]
        database = Database(url)
        yield Replicas(servers, database, stack)
        database.close()


def limited(response: httpx.Response, code: str, policy: str) -> dict[str, str]:
    """Returns the headers of a refusal, having looked at them."""
    assert_problem(response, 429, code)
    headers = dict(response.headers)
    assert int(headers["retry-after"]) >= 1
    assert re.fullmatch(rf'"{policy}";q=\d+(;w=\d+)?', headers["ratelimit-policy"])
    assert headers["ratelimit"] == f'"{policy}";r=0;t={headers["retry-after"]}'
    return headers


def test_requests_are_counted_over_all_replicas(replicas: Replicas) -> None:
    clients = replicas.clients("busy")
    first = clients[0].get("/v1/workers")
    begun = time.monotonic()
    assert first.headers["ratelimit-policy"] == f'"requests";q={BURST};w={BURST / PER_SECOND:.0f}'
    left = re.fullmatch(r'"requests";r=(\d+);t=\d+', first.headers["ratelimit"])
    assert left is not None
    assert int(left[1]) == BURST - 1
    n_asked = 3 * BURST
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: clients[n % 2].get("/v1/workers"), range(n_asked)))
    elapsed = time.monotonic() - begun
    n_served = 1 + sum(answer.status_code == 200 for answer in answers)
    # What a replica takes at once it may take in vain.
    assert BURST - 2 * PER_SECOND <= n_served <= BURST + PER_SECOND * elapsed + 1
    refused = [answer for answer in answers if answer.status_code != 200]
    if n_served < n_asked:
        limited(refused[-1], "REQUESTS_LIMIT", "requests")
    # Neither others nor what says whether the service is well are held up by it.
    (other, _) = replicas.clients("calm")
    assert other.get("/v1/workers").status_code == 200
    assert all(clients[0].get("/livez").status_code == 200 for _ in range(BURST))


def test_who_comes_back_when_told_is_served(replicas: Replicas) -> None:
    client, _ = replicas.clients("patient")
    while (answer := client.get("/v1/workers")).status_code == 200:
        pass
    seconds = int(limited(answer, "REQUESTS_LIMIT", "requests")["retry-after"])
    assert seconds <= 2
    time.sleep(seconds)  # as a client would that was told so
    assert client.get("/v1/workers").status_code == 200


def test_queued_fits_are_counted_over_all_replicas(replicas: Replicas) -> None:
    clients = replicas.clients("eager")
    body = {"dataset": {"points": [[1.0]]}, "n_components": 1}
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: clients[n % 2].post("/v1/fits", json=body), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    limited(refused, "QUEUED_FITS_LIMIT", "queued-fits")
    queued = next(answer for answer in answers if answer.status_code == 202)
    assert clients[0].post(f"{queued.headers['location']}/cancel").json()["status"] == "cancelled"
    assert clients[1].post("/v1/fits", json=body).status_code == 202


def test_stored_bytes_are_counted_over_all_replicas(replicas: Replicas) -> None:
    clients = replicas.clients("hoarder")
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: clients[n % 2].post("/v1/datasets", json=POINTS), range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    limited(refused, "STORED_BYTES_LIMIT", "stored-bytes")
    stored = next(answer for answer in answers if answer.status_code == 201)
    # Points that come with a fit count as well.
    body = {"dataset": POINTS, "n_components": 1}
    limited(clients[0].post("/v1/fits", json=body), "STORED_BYTES_LIMIT", "stored-bytes")
    assert clients[0].delete(stored.headers["location"]).status_code == 204
    assert clients[1].post("/v1/datasets", json=POINTS).status_code == 201


def test_device_seconds_are_counted_and_end_with_the_day(replicas: Replicas) -> None:
    (client, _) = replicas.clients("heavy")
    body = {"dataset": {"points": [[1.0]]}, "n_components": 1, "priority": 10}
    fit_id = client.post("/v1/fits", json=body).json()["id"]
    held = claimed(replicas.database)
    assert held.fit_id == fit_id
    assert queue.release(replicas.database, held)
    held = claimed(replicas.database)
    assert queue.fail(replicas.database, held, "INTERNAL", "A test.")
    with replicas.database.write() as session:
        row = session.scalars(select(DeviceUseRow).where(DeviceUseRow.owner == "heavy")).one()
        assert 0 < row.seconds < 3600
        row.seconds += 3600
        session.flush()
        assert device_seconds_today(session, "heavy") == pytest.approx(row.seconds)
    headers = limited(client.post("/v1/fits", json=body), "DEVICE_SECONDS_LIMIT", "device-seconds")
    assert int(headers["retry-after"]) <= 86_400
    (other, _) = replicas.clients("light")
    assert other.post("/v1/fits", json=body).status_code == 202


def test_an_owner_has_limits_of_its_own_at_once_on_every_replica(replicas: Replicas) -> None:
    none = own_limits.UNLIMITED
    clients = replicas.clients(
        "own", queued_fits=1, stored_bytes=none, requests_per_second=1, request_burst=8
    )
    body = {"dataset": POINTS, "n_components": 1}
    assert clients[0].post("/v1/fits", json=body).status_code == 202
    assert limited(clients[1].post("/v1/fits", json=body), "QUEUED_FITS_LIMIT", "queued-fits")
    made = [client.post("/v1/datasets", json=POINTS).status_code for client in clients * 2]
    assert made == [201] * 4  # 160 bytes, with the fit's
    answers = [clients[n % 2].get("/v1/workers") for n in range(8)]
    assert limited(answers[-1], "REQUESTS_LIMIT", "requests")["ratelimit-policy"] == '"requests";q=8;w=8'
    with replicas.database.write() as session:
        own_limits.give(session, "own", "requests_per_second", none)
    for client in clients:
        answer = client.get("/v1/workers")
        assert answer.status_code == 200
        assert "ratelimit-policy" not in answer.headers


def test_a_key_is_revoked_at_once_on_every_replica(replicas: Replicas) -> None:
    clients = replicas.clients("leaving")
    for _ in range(2):
        assert [client.get("/v1/workers").status_code for client in clients] == [200, 200]
    with replicas.database.write() as session:
        (row,) = [row for row in keys.all_of(session) if row.owner == "leaving"]
        keys.revoke(session, row.id)
    for client in clients:
        assert_problem(client.get("/v1/workers"), 401, "KEY_REVOKED")
