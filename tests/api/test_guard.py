"""Keys and owners over HTTP: every operation of the OpenAPI document, on both databases.

A new operation is walked without being named here, as long as its parameters and its body are of known kinds;
otherwise `requests_of` fails and says what it does not know.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from service.app import create_app
from service.settings import Settings
from service.storage import keys
from service.storage.database import Database
from tests.api.test_problems import assert_problem
from tests.serving import GOLD, Server, command, environment, serving, until

EVERYTHING = ("read", "write", "admin")
OPEN = {("/livez", "get"), ("/readyz", "get")}
NOT_DOCUMENTED = {"/", "/docs", "/openapi.json", "/static"}
BODIES: dict[str, dict[str, Any]] = {
    "DatasetCreation": {"points": [[1.0, 2.0], [3.0, 5.0]]},
    "FitRequest": {"dataset": {"gold": GOLD, "n_samples": 50}, "n_components": 1, "n_init": 1},
    "MixtureCreation": GOLD,
    "PointsBody": {"points": [[1.0, 2.0]]},
    "SamplesRequest": {"n_samples": 3},
}


@dataclass(frozen=True)
class Service:
    """A server that asks for keys, and the database that it stands on."""

    server: Server
    url: str
    database: Database

    def key(self, owner: str, *scopes: str, expires_at: datetime | None = None) -> str:
        with self.database.write() as session:
            return keys.create(session, f"of {owner}", owner, scopes or EVERYTHING, expires_at)[0]

    def client(self, key: str = "") -> httpx.Client:
        return self.server.client(headers={"Authorization": f"Bearer {key}"} if key else {})


@dataclass(frozen=True)
class Call:
    """One operation with everything filled in."""

    method: str
    template: str
    path: str
    body: dict[str, Any] | None
    scope: str | None

    def by(self, http: httpx.Client, **headers: str) -> httpx.Response:
        return http.request(self.method, self.path, json=self.body, headers=headers)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("guarded")
    url = f"sqlite:///{data_dir / 'mixserve.sqlite3'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    with serving(data_dir, workers=1, database_url=url, auth="keys", log_level="debug") as server:
        database = Database(url)
        yield Service(server, url, database)
        database.close()


@pytest.fixture(scope="module")
def ids(service: Service) -> dict[str, str]:
    """What the owner `a` has: a fit that has ended, its dataset and its mixture."""
    with service.client(service.key("a")) as http:
        fit = http.post("/v1/fits", json=BODIES["FitRequest"], headers={"Prefer": "wait=60"}).json()
    assert fit["status"] == "succeeded", fit
    return {
        "fit_id": fit["id"],
        "dataset_id": fit["dataset_id"],
        "mixture_id": fit["result"]["mixture_id"],
    }


def calls_of(document: dict[str, Any], ids: dict[str, str]) -> list[Call]:
    """Every operation as a request that would be answered well."""
    calls = []
    for template, operations in document["paths"].items():
        unknown = set(re.findall(r"\{(\w+)\}", template)) - set(ids)
        assert not unknown, f"{template}: tell this test what to put for {unknown}"
        for method, operation in operations.items():
            (security,) = operation.get("security", [{"key": [None]}])
            body = _body(operation, f"{method} {template}")
            calls.append(Call(method, template, template.format(**ids), body, security["key"][0]))
    return calls


def _body(operation: dict[str, Any], where: str) -> dict[str, Any] | None:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    schema = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
    assert schema in BODIES, f"{where}: tell this test of a body for {schema or content}"
    return BODIES[schema]


@pytest.fixture(scope="module")
def calls(service: Service, ids: dict[str, str]) -> list[Call]:
    with service.client() as http:
        return calls_of(http.get("/openapi.json").json(), ids)


def test_the_document_says_what_each_operation_wants(calls: list[Call]) -> None:
    assert len(calls) >= 20
    for call in calls:
        if (call.template, call.method) in OPEN:
            assert call.scope is None
        elif call.method == "get":
            assert call.scope == ("admin" if call.template == "/metrics" else "read")
        elif call.method == "delete":
            assert call.scope == "write"
        else:
            assert call.scope in ("read", "write")
    assert {call.scope for call in calls if call.method == "post"} == {"read", "write"}


def test_what_is_not_in_the_document_is_open_on_purpose(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, auth="keys"))
    assert _paths(app.routes) - set(app.openapi()["paths"]) == NOT_DOCUMENTED


def _paths(routes: Any) -> set[str]:
    """The path of every route, those of routers that were included too."""
    own = {path for route in routes if (path := getattr(route, "path", None))}
    included = (router for route in routes if (router := getattr(route, "original_router", None)))
    return own.union(*(_paths(router.routes) for router in included))


def test_nobody_gets_in_without_a_key_that_opens(service: Service, calls: list[Call]) -> None:
    with service.database.write() as session:
        revoked, row = keys.create(session, "lost", "a", EVERYTHING, None)
        keys.revoke(session, row.id)
    expired = service.key("a", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    wrong = {
        "": "KEY_MISSING",
        "Bearer": "KEY_MALFORMED",
        f"Basic {service.key('a')}": "KEY_MALFORMED",
        f"Bearer {service.key('a')[:-1]}": "KEY_MALFORMED",
        f"Bearer {keys.new_key()}": "KEY_UNKNOWN",
        f"Bearer {revoked}": "KEY_REVOKED",
        f"Bearer {expired}": "KEY_EXPIRED",
    }
    with service.client() as http:
        for call in calls:
            if (call.template, call.method) in OPEN:
                assert call.by(http).status_code == 200
                continue
            for header, code in wrong.items():
                response = call.by(http, **({"Authorization": header} if header else {}))
                assert_problem(response, 401, code)
                challenge = response.headers["www-authenticate"]
                assert challenge == ("Bearer" if not header else 'Bearer error="invalid_token"')
        for path in ("/v1/nowhere", "/v1/fits/"):
            assert_problem(http.get(path), 401, "KEY_MISSING")
        for path in ("/", "/docs", "/static/page/app.js"):
            assert http.get(path).status_code == 200


def test_a_key_opens_what_its_scopes_say(service: Service, calls: list[Call]) -> None:
    for scope in EVERYTHING:
        lacking = service.key("c", *(other for other in EVERYTHING if other != scope))
        having = service.key("c", scope)
        with service.client(lacking) as without, service.client(having) as within:
            for call in (call for call in calls if call.scope == scope):
                response = call.by(without)
                assert_problem(response, 403, "SCOPE_MISSING")
                expected = f'Bearer error="insufficient_scope", scope="{scope}"'
                assert response.headers["www-authenticate"] == expected
                assert call.by(within).status_code not in (401, 403)


def test_a_strangers_id_is_a_404_as_if_it_had_never_been(
    service: Service, calls: list[Call], ids: dict[str, str]
) -> None:
    of_one = [call for call in calls if call.path != call.template]
    assert {"get", "post", "delete"} == {call.method for call in of_one}
    nothing = {name: f"{ident[:4]}{'0' * 26}" for name, ident in ids.items()}
    with service.client(service.key("a")) as mine, service.client(service.key("b")) as strange:
        # Its owner first, so that whatever the service keeps in memory, it has by now.
        for call in of_one:
            if call.method != "delete":
                assert call.by(mine).is_success, call
        for call in of_one:
            refused = assert_problem(call.by(strange), 404)
            never = call.template.format(**nothing)
            unknown = assert_problem(strange.request(call.method, never, json=call.body), 404)
            for name, ident in ids.items():
                refused["detail"] = refused["detail"].replace(ident, nothing[name])
            for one in (refused, unknown):
                del one["request_id"], one["instance"]
            assert refused == unknown
        waiting = {"Prefer": "wait=1", "Accept": "application/json"}
        assert_problem(strange.get(f"/v1/fits/{ids['fit_id']}", headers=waiting), 404)
        streaming = {"Accept": "text/event-stream"}
        assert_problem(strange.get(f"/v1/fits/{ids['fit_id']}/events", headers=streaming), 404)
        for call in of_one:
            if call.method == "get":
                assert call.by(mine).is_success


def test_a_list_holds_its_readers_own(service: Service, calls: list[Call], ids: dict[str, str]) -> None:
    lists = [call for call in calls if call.path == call.template and call.method == "get"]
    with service.client(service.key("a")) as mine, service.client(service.key("nobody")) as strange:
        seen = "".join(call.by(mine).text for call in lists)
        assert all(ident in seen for ident in ids.values())
        for call in lists:
            response = call.by(strange)
            assert response.status_code == 200, call
            assert not any(ident in response.text for ident in ids.values()), call
        query = {"dataset_id": ids["dataset_id"]}
        assert strange.get("/v1/fits", params=query).json()["items"] == []


def test_nothing_of_a_stranger_goes_into_what_is_made(service: Service, ids: dict[str, str]) -> None:
    start = {"method": "mixture", "mixture_id": ids["mixture_id"]}
    with service.client(service.key("b")) as strange:
        body = {"dataset": {"id": ids["dataset_id"]}, "n_components": 1}
        assert_problem(strange.post("/v1/fits", json=body), 404, "DATASET_NOT_FOUND")
        body = BODIES["FitRequest"] | {"initialization": start}
        assert_problem(strange.post("/v1/fits", json=body), 404, "MIXTURE_NOT_FOUND")


def test_an_idempotency_key_is_its_owners(service: Service) -> None:
    with service.client(service.key("a")) as mine, service.client(service.key("b")) as strange:
        first, second = (
            http.post("/v1/datasets", json=BODIES["DatasetCreation"], headers={"Idempotency-Key": "the same"})
            for http in (mine, strange)
        )
        assert (first.status_code, second.status_code) == (201, 201)
        assert "idempotent-replayed" not in second.headers
        assert first.json()["id"] != second.json()["id"]
        assert first.json()["sha256"] == second.json()["sha256"]
        assert strange.delete(second.headers["location"]).status_code == 204
        assert mine.get(f"{first.headers['location']}/points").status_code == 200


def test_a_key_made_and_revoked_by_hand_opens_and_closes_at_once(service: Service) -> None:
    said = _mixserve(service, "keys", "create", "by hand", "--owner", "a", "--scope", "read")
    key, key_id = said.stdout.strip(), said.stderr.split(",")[0]
    with service.client(key) as http:
        assert http.get("/v1/fits").json()["items"]
        assert_problem(http.post("/v1/datasets", json=BODIES["DatasetCreation"]), 403, "SCOPE_MISSING")
        listed = _mixserve(service, "keys", "list", "--json").stdout
        assert key_id in listed
        assert key not in listed
        _mixserve(service, "keys", "revoke", key_id)
        assert_problem(http.get("/v1/fits"), 401, "KEY_REVOKED")


def _mixserve(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = environment(database_url=service.url)
    done = subprocess.run(command(*arguments), env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_the_use_of_keys_is_in_the_audit(service: Service) -> None:
    key = service.key("audited", "read")
    with service.client(key) as http:
        http.get("/v1/fits", headers={"X-Request-Id": "audit-used"})
        http.post("/v1/datasets", json=BODIES["DatasetCreation"], headers={"X-Request-Id": "audit-scope"})
        http.get("/livez", headers={"X-Request-Id": "audit-open"})
    with service.client(keys.new_key()) as http:
        http.get("/v1/fits", headers={"X-Request-Id": "audit-unknown"})

    def lines() -> dict[str, dict[str, Any]]:
        said = (json.loads(line) for line in list(service.server.lines) if '"audit-' in line)
        return {line["request_id"]: line for line in said}

    logged = until(lambda: lines() if len(lines()) == 4 else None)
    with service.database.read() as session:
        (row,) = [row for row in keys.all_of(session) if row.owner == "audited"]
    holder = {"owner": "audited", "key_id": row.id, "key_name": "of audited", "audit": True}
    request = {"method": "GET", "path": "/v1/fits", "route": "/v1/fits", "status": 200}
    assert (holder | request).items() <= logged["audit-used"].items()
    refused = {"method": "POST", "path": "/v1/datasets", "status": 403, "code": "SCOPE_MISSING"}
    assert (holder | refused).items() <= logged["audit-scope"].items()
    unknown = {"status": 401, "code": "KEY_UNKNOWN", "audit": True}
    assert unknown.items() <= logged["audit-unknown"].items()
    assert "key_id" not in logged["audit-unknown"]
    assert logged["audit-open"]["audit"] is False


def test_a_key_is_in_no_log_no_answer_and_no_database(service: Service) -> None:
    canary = service.key("a", "read")
    with service.client(canary) as http:
        paths = ("/v1/fits", f"/v1/fits/{canary}", f"/v1/fits?{canary}=1", f"/{canary}", "/livez")
        answers = [http.get(path) for path in paths]
        answers.append(http.get("/livez", headers={"X-Request-Id": canary[:40]}))
        answers.append(http.post("/v1/datasets", json={canary: 1}))
        answers.append(http.get("/v1/fits", headers={"Authorization": f"Basic {canary}"}))
        answers.append(http.get("/v1/fits", headers={"Accept": canary}))
    assert {answer.status_code for answer in answers} >= {200, 401, 403, 404, 406, 422}
    secret = canary[5:-6]
    for answer in answers:
        assert secret not in answer.text
    assert "service.access" in service.server.log
    assert "mixs_..." in service.server.log  # it was there to be seen
    assert '"level":"debug"' in service.server.log
    assert secret not in service.server.log
    assert secret not in _dumped(service.database)
    for path in service.server.data_dir.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


def _dumped(database: Database) -> str:
    with database.read() as session:
        if database.is_sqlite:
            return "\n".join(session.connection().connection.iterdump())  # type: ignore[attr-defined]
        names = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return "".join(
            row for name in names for row in session.scalars(text(f'SELECT t::text FROM "{name}" AS t'))
        )
