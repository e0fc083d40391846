"""Clients that never give up: they submit seeded fits, ask again if not answered, and note what is wrong."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.serving import GOLD

FINAL = ("succeeded", "failed", "cancelled")
_COME_AGAIN = (409, 429, 503)
_PAUSE_SECONDS = 0.1
_STEPS = {"optimizer": {"name": "sgd", "batch_size": 10}, "tolerance": 0, "n_init": 1}

KINDS: list[dict[str, Any]] = [
    {"dataset": {"gold": GOLD, "n_samples": 300, "seed": 1}, "n_components": 2, "n_init": 2, "seed": 1},
    {"dataset": {"gold": GOLD, "n_samples": 300, "seed": 2}, "n_components": 3, "seed": 2},
    {"dataset": {"points": [[0.0], [1.0], [5.0]], "weights": [1, 2, 3]}, "n_components": 1},
    {"dataset": {"gold": GOLD, "seed": 3}, "n_components": [1, 2, 3], "covariance_type": ["full", "diag"]},
    {"dataset": {"gold": GOLD, "seed": 4}, "n_components": 3, "max_steps": 2_000, "seed": 4} | _STEPS,
    {"dataset": {"gold": GOLD, "seed": 5}, "n_components": 3, "max_steps": 10_000, "seed": 5} | _STEPS,
]
"""Requests that take from next to nothing to some seconds."""


@dataclass
class Acknowledged:
    """A fit that the service has promised."""

    fit_id: str
    kind: int
    key: str
    cancelled: bool = False


@dataclass
class Crowd:
    """What the clients share. `findings` are broken promises; none is the goal."""

    urls: list[str]
    seed: int
    findings: list[str] = field(default_factory=list)
    promised: list[Acknowledged] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)

    def client(self, number: int) -> None:
        """Submits fits until there are enough, and sees each of them through."""
        chance = random.Random(self.seed * 1000 + number)
        with httpx.Client(timeout=20, trust_env=False) as http:
            n = 0
            while not self.enough.is_set():
                n += 1
                fits = [
                    self._submitted(http, chance, f"{number}-{n}-{i}") for i in range(chance.choice((1, 3)))
                ]
                for fit in fits:
                    if fit is not None:
                        self._see_through(http, chance, fit)

    def _submitted(self, http: httpx.Client, chance: random.Random, key: str) -> Acknowledged | None:
        kind = chance.randrange(len(KINDS))
        body = KINDS[kind] | {"metadata": {"key": key}, "priority": chance.choice((0, 0, 1))}
        self.keys.append(key)
        response = self.insist(http, "POST", "/v1/fits", {202}, json=body, headers={"Idempotency-Key": key})
        if response is None:
            return None
        fit = Acknowledged(response.json()["id"], kind, key)
        self.promised.append(fit)
        if chance.random() < 0.2:
            again = self.insist(http, "POST", "/v1/fits", {202}, json=body, headers={"Idempotency-Key": key})
            if again is not None and again.json()["id"] != fit.fit_id:
                self.findings.append(f"the key {key} gave {fit.fit_id}, then {again.json()['id']}")
        return fit

    def _see_through(self, http: httpx.Client, chance: random.Random, fit: Acknowledged) -> None:
        path = f"/v1/fits/{fit.fit_id}"
        if chance.random() < 0.1:
            fit.cancelled = True
            self.insist(http, "POST", f"{path}/cancel", {200})
        if chance.random() < 0.4:
            self._follow(http, path)
        while True:
            response = self.insist(http, "GET", path, {200}, headers={"Prefer": "wait=5"})
            if response is None:
                return
            if response.json()["status"] in FINAL:
                break
        if chance.random() < 0.5:
            # Any that was not answered may have been done.
            self.insist(http, "DELETE", f"/v1/datasets/{response.json()['dataset_id']}", {204, 404})

    def _follow(self, http: httpx.Client, path: str) -> None:
        """Reads a fit's events to their end, over however many connections that takes."""
        seen: list[int] = []
        while not self.given_up.is_set():
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(len(seen))}
            try:
                with http.stream(
                    "GET", self._any_url(len(seen)) + path + "/events", headers=headers
                ) as stream:
                    if stream.status_code == 204:
                        break
                    # What came before the connection broke is kept.
                    seen.extend(int(line[4:]) for line in stream.iter_lines() if line.startswith("id: "))
            except httpx.TransportError:
                self.given_up.wait(_PAUSE_SECONDS)
        if seen != list(range(1, len(seen) + 1)):
            self.findings.append(f"{path} streamed the events {seen}")

    def insist(
        self, http: httpx.Client, method: str, path: str, wanted: set[int], **options: Any
    ) -> httpx.Response | None:
        """Returns the answer that was wanted, however often it takes; None when there is no more time."""
        attempt = 0
        while not self.given_up.is_set():
            attempt += 1
            try:
                response = http.request(method, self._any_url(attempt) + path, **options)
            except httpx.TransportError:
                self.given_up.wait(_PAUSE_SECONDS)
                continue
            if response.status_code in wanted:
                return response
            if response.status_code not in _COME_AGAIN:
                self.findings.append(f"{method} {path}: {response.status_code} {response.text[:300]}")
                return None
            self.given_up.wait(_PAUSE_SECONDS)
        return None

    def _any_url(self, number: int) -> str:
        return self.urls[number % len(self.urls)]
