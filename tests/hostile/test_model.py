"""Fits submitted, asked for again, cancelled, deleted and killed in any order, beside a model of them."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.acceptance.test_service import ENDLESS, fitter
from tests.hostile import AT_LENGTH
from tests.serving import Server, serving, until

FINAL = ("succeeded", "failed", "cancelled")
POINTS = [[0.0], [0.5], [1.0], [7.0], [7.5], [8.0]]
KINDS: dict[str, dict[str, Any]] = {
    "at once": {"dataset": {"points": POINTS}, "n_components": 1},
    "short": {"dataset": {"points": POINTS}, "n_components": [1, 2], "n_init": 2},
    "bound to fail": {"dataset": {"points": POINTS}, "n_components": 2, "timeout_seconds": 1e-6},
    "endless": ENDLESS,
}
# The keeper of workers pauses the longer, the more of them have died soon after one another.
MOST_WORKERS_KILLED = 2


@dataclass
class Fit:
    """A fit that has been acknowledged, as far as a client knows."""

    id: str
    dataset_id: str
    body: dict[str, Any]
    key: str | None
    status: str = "queued"
    attempt: int = 0
    result: Any = None
    has_dataset: bool = True
    deleted: bool = False
    wished: set[str] = field(default_factory=set)

    @property
    def path(self) -> str:
        return f"/v1/fits/{self.id}"

    def see(self, answer: dict[str, Any]) -> None:
        """Takes in an answer, which must be one that can follow on the one before."""
        assert answer["id"] == self.id
        assert answer["attempt"] >= self.attempt
        if self.status in FINAL:
            assert (answer["status"], answer["result"]) == (self.status, self.result)
        self.status, self.attempt, self.result = answer["status"], answer["attempt"], answer["result"]
        assert (self.result is not None) == (self.status == "succeeded")
        assert (answer["error"] is not None) == (self.status == "failed")
        if self.status == "cancelled":
            assert "cancel" in self.wished
        if self.status == "failed":
            assert (answer["error"]["code"], "timeout_seconds" in self.body) == ("TIMED_OUT", True)


class Service(RuleBasedStateMachine):
    """A client of a service that somebody kills processes of."""

    server: Server
    http: httpx.Client
    n_workers_killed = 0
    n_keys = 0

    fits: Bundle[Fit] = Bundle("fits")

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Fit] = []
        self.killed = False

    @rule(target=fits, kind=st.sampled_from(sorted(KINDS)), keyed=st.booleans())
    def submit(self, kind: str, keyed: bool) -> Fit:
        key = None
        if keyed:
            Service.n_keys += 1
            key = f"key-{Service.n_keys}"
        answer = self.post(KINDS[kind], key)
        assert answer.status_code == 202
        made = answer.json()
        assert answer.headers["location"] == f"/v1/fits/{made['id']}"
        fit = Fit(made["id"], made["dataset_id"], KINDS[kind], key)
        fit.see(made)
        self.known.append(fit)
        return fit

    @rule(fit=fits)
    def ask_again(self, fit: Fit) -> None:
        if fit.key is None:
            return
        answer = self.post(fit.body, fit.key)
        assert (answer.status_code, answer.json()["id"]) == (202, fit.id)
        assert answer.headers["idempotent-replayed"] == "true"
        other = self.post(fit.body | {"seed": 1}, fit.key)
        assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    @rule(fit=fits)
    def read(self, fit: Fit) -> None:
        self.look(fit, self.http.get(fit.path, headers={"Prefer": "wait=1"}))

    @rule(fit=fits)
    def cancel(self, fit: Fit) -> None:
        if not fit.deleted:
            fit.wished.add("cancel")
        answer = self.http.post(f"{fit.path}/cancel")
        self.look(fit, answer)
        if not fit.deleted and fit.attempt == 0:
            assert fit.status in FINAL

    @rule(fit=fits)
    def delete(self, fit: Fit) -> None:
        had_ended = fit.status in FINAL
        status = self.http.delete(fit.path).status_code
        if fit.deleted:
            assert status == 404
        elif status == 409:
            assert not had_ended
        else:
            assert status == 204
            fit.deleted = True

    @rule(fit=consumes(fits))
    def delete_dataset(self, fit: Fit) -> None:
        had_ended = fit.status in FINAL
        status = self.http.delete(f"/v1/datasets/{fit.dataset_id}").status_code
        assert status == (204 if had_ended or fit.deleted else status)
        assert status in (204, 409)
        fit.has_dataset = status == 409

    @precondition(lambda self: not self.killed)
    @rule(worker=st.booleans())
    def kill(self, worker: bool) -> None:
        process_id = until(lambda: _fitter(self.server))
        if worker and Service.n_workers_killed < MOST_WORKERS_KILLED:
            Service.n_workers_killed += 1
            process_id = int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(process_id, signal.SIGKILL)
        self.killed = True

    @invariant()
    def lists_hold_what_there_is(self) -> None:
        there = [fit.id for fit in reversed(self.known) if not fit.deleted]
        assert [item["id"] for item in self.listed("fits")] == there
        datasets = [fit.dataset_id for fit in reversed(self.known) if fit.has_dataset]
        assert [item["id"] for item in self.listed("datasets")] == datasets

    def teardown(self) -> None:
        """Has every fit end, once, and takes everything away."""
        for fit in self.known:
            if not fit.deleted and fit.body is ENDLESS:
                self.cancel(fit)
        for fit in self.known:
            if not fit.deleted:
                until(lambda fit=fit: self.read(fit) or fit.status in FINAL, 60)
                self.end_only_once(fit)
        made = {item["fit_id"] for item in self.listed("mixtures")}
        assert {fit.id for fit in self.known if fit.status == "succeeded"} <= made
        assert made <= {fit.id for fit in self.known if fit.status == "succeeded" or fit.deleted}
        for fit in self.known:
            self.delete(fit)
            assert self.http.delete(f"/v1/datasets/{fit.dataset_id}").status_code == (
                204 if fit.has_dataset else 404
            )
        for item in self.listed("mixtures"):
            self.http.delete(f"/v1/mixtures/{item['id']}").raise_for_status()
        assert self.listed("fits") == self.listed("datasets") == []

    def end_only_once(self, fit: Fit) -> None:
        events = self.http.get(
            f"{fit.path}/events?page_size=200", headers={"Accept": "application/json"}
        ).json()["items"]
        statuses = [event["data"]["status"] for event in events if event["type"] == "status"]
        assert [status for status in statuses if status in FINAL] == [fit.status]
        assert statuses[0] == "queued"
        assert statuses[-1] == fit.status
        assert statuses.count("running") == fit.attempt

    def look(self, fit: Fit, answer: httpx.Response) -> None:
        if fit.deleted:
            assert (answer.status_code, answer.json()["code"]) == (404, "FIT_NOT_FOUND")
        else:
            assert answer.status_code == 200, answer.text
            fit.see(answer.json())

    def post(self, body: dict[str, Any], key: str | None) -> httpx.Response:
        return self.http.post("/v1/fits", json=body, headers={"Idempotency-Key": key} if key else {})

    def listed(self, noun: str) -> list[dict[str, Any]]:
        """Returns a whole list, over pages of two."""
        items: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self.http.get(f"/v1/{noun}", params={"page_size": "2"} | token).json()
            items += page["items"]
            if "next_page_token" not in page:
                return items
            token = {"page_token": page["next_page_token"]}


def _fitter(server: Server) -> int | None:
    """Returns the process that does the fitting, unless it is just being started."""
    try:
        return fitter(server)
    except (ValueError, OSError):
        return None


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[type[Service]]:
    with (
        serving(tmp_path_factory.mktemp("data"), lease_seconds=2, max_attempts=1000) as server,
        server.client() as http,
    ):
        Service.server, Service.http = server, http
        yield Service
        assert "a request has failed" not in server.log


@pytest.mark.timeout(3600 if AT_LENGTH else 180)
def test_the_service_does_what_its_model_does(service: type[Service]) -> None:
    run_state_machine_as_test(
        service,
        settings=settings(
            max_examples=60 if AT_LENGTH else 5,
            stateful_step_count=30 if AT_LENGTH else 14,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
