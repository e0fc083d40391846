"""What every answer carries, and what none does: no place in the code, no path of the machine."""

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.settings import Settings
from service.storage import datasets, events, fits, migrations, mixtures, workers
from tests.api.test_guard import calls_of
from tests.api.test_problems import assert_problem

SECURE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}
ELSEWHERE = "https://elsewhere.example"
IDS = {name: f"{name[:3]}_{'0' * 26}" for name in ("dataset_id", "fit_id", "mixture_id")}
SECRET = "/srv/secret/place.py, line 7"


@pytest.fixture
def app_of(tmp_path: Path, migrated_sqlite: Path) -> Any:
    shutil.copy(migrated_sqlite, tmp_path / "mixserve.sqlite3")

    def made(**settings: Any) -> FastAPI:
        return create_app(Settings(data_dir=tmp_path, **settings))

    return made


class Client:
    """Asks an app in this process, which a test may break."""

    def __init__(self, runner: asyncio.Runner, client: httpx.AsyncClient) -> None:
        self._runner = runner
        self._client = client

    def request(self, method: str, path: str, **said: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **said))

    def get(self, path: str, **said: Any) -> httpx.Response:
        return self.request("GET", path, **said)


@contextmanager
def asking(app: FastAPI) -> Iterator[Client]:
    transport = httpx.ASGITransport(app)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        client = httpx.AsyncClient(transport=transport, base_url="http://in.process")
        yield Client(runner, client)
        runner.run(client.aclose())
        runner.run(lifespan.__aexit__(None, None, None))


@pytest.fixture
def http(app_of: Any) -> Iterator[Client]:
    with asking(app_of()) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "status"),
    [("/livez", 200), ("/readyz", 503), ("/v1/fits", 200), ("/v1/fits/x", 404), ("/nowhere", 404), ("/", 200),
     ("/static/styles/theme.css", 200), ("/openapi.json", 200), ("/metrics", 200), ("/v1/fits?x=1", 422)],
)  # fmt: skip
def test_every_answer_is_safe_to_show(http: Client, path: str, status: int) -> None:
    answer = http.get(path)
    assert answer.status_code == status
    assert SECURE.items() <= answer.headers.items()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for name in (*SECURE, "content-security-policy", "x-request-id"):
        assert len(answer.headers.get_list(name)) == 1
    if path.startswith("/v1/"):
        assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in http.get(path, headers={"Origin": ELSEWHERE}).headers


def test_other_origins_are_let_in_when_named(app_of: Any) -> None:
    with asking(app_of(auth="keys", cors_origins=f"{ELSEWHERE} https://second.example")) as http:
        asked = {
            "Origin": ELSEWHERE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, idempotency-key",
        }
        preflight = http.request("OPTIONS", "/v1/fits", headers=asked)  # which carries no key
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == ELSEWHERE
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        answer = http.get("/v1/fits", headers={"Origin": ELSEWHERE})
        assert_problem(answer, 401)
        assert answer.headers["access-control-allow-origin"] == ELSEWHERE
        assert "RateLimit" in answer.headers["access-control-expose-headers"]
        assert "cross-origin-resource-policy" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers
        stranger = http.get("/livez", headers={"Origin": "https://third.example"})
        assert "access-control-allow-origin" not in stranger.headers


def test_the_documentation_can_be_switched_off(app_of: Any) -> None:
    with asking(app_of(docs=False)) as http:
        for path in ("/docs", "/openapi.json"):
            assert_problem(http.get(path), 404)
        assert http.get("/").status_code == 200


def test_a_mistake_of_ours_shows_nothing_but_its_request_id(
    app_of: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_of()
    calls = calls_of(app.openapi(), IDS)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"broken at {SECRET}")

    for room, names in {
        datasets: ("add", "get", "page", "delete"),
        events: ("after",),
        fits: ("submit", "get", "page", "cancel", "delete"),
        mixtures: ("add", "get", "page", "delete"),
        workers: ("alive", "devices"),
        migrations: ("current_revision",),
    }.items():
        for name in names:
            monkeypatch.setattr(room, name, broken)
    n_broken = 0
    with asking(app) as http, caplog.at_level(logging.ERROR):
        for call in calls:
            caplog.clear()
            answer = call.by(http)
            assert SECRET not in answer.text
            for sign in ("Traceback", ".py", "site-packages", "RuntimeError", str(Path.cwd())):
                assert sign not in answer.text, call
            if answer.status_code < 500:
                continue
            problem = assert_problem(answer, 500, "INTERNAL")
            assert SECURE.items() <= answer.headers.items()
            assert set(problem) == {"type", "title", "status", "detail", "instance", "code", "request_id"}
            (record,) = [record for record in caplog.records if record.name == "service.access"]
            assert record.exc_info is not None
            assert SECRET in str(record.exc_info[1])
            n_broken += 1
    assert n_broken >= len(calls) - 4  # all but livez, metrics and what is refused before
