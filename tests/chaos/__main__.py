"""Kills any process of a running service at random moments, and looks whether every promise was kept.

    python -m tests.chaos --database sqlite --kills 100 --seconds 400

Exits with 0 when all were, with 1 after saying which were not.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from service.storage.database import Database
from tests.chaos import inspection
from tests.chaos.crowd import KINDS, Crowd
from tests.chaos.fleet import Fleet
from tests.conftest import running_postgresql
from tests.serving import START_SECONDS, until

# No fit may fail for the killing itself, and those who wait for a lease should not wait for long.
SETTINGS = {"max_attempts": 10_000, "lease_seconds": 3, "checkpoint_seconds": 0.2}
VICTIMS = {"server": 2, "worker": 4, "fitter": 4, "resource tracker": 1}
"""Who is killed how often, against the others."""
_CALM_SECONDS = 120
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a run did, and every promise that it saw broken."""

    killed: Counter[str]
    n_promised: int
    findings: list[str]
    log: str


def run(folder: Path, database_url: str, *, kills: int, seconds: float, seed: int, clients: int) -> Outcome:
    """Returns what came of killing processes of a service under load.

    Args:
        folder: An empty folder.
        database_url: A database without rows; empty for SQLite.
        kills: How many processes to kill.
        seconds: Over about how long.
        seed: Of what is submitted and who is killed when, as far as processes obey.
        clients: How many submit fits at once.
    """
    fleet = Fleet(folder, database_url, **SETTINGS)
    crowd = Crowd(fleet.urls, seed)
    try:
        undisturbed = _calm(fleet, crowd)
        threads = [threading.Thread(target=crowd.client, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        killed = _kill(fleet, random.Random(seed), kills, seconds)
        crowd.enough.set()
        _wait_for(threads, fleet, crowd)
    finally:
        crowd.enough.set()
        crowd.given_up.set()
        left = fleet.stop()
    database = Database(database_url or f"sqlite:///{folder / 'data' / 'mixserve.sqlite3'}")
    findings = [
        *crowd.findings,
        *left,
        *inspection.of_rows(database, crowd, undisturbed),
        *inspection.of_files(database, folder / "data" / "datasets"),
    ]
    database.close()
    return Outcome(killed, len(crowd.promised), findings, fleet.log)


def _calm(fleet: Fleet, crowd: Crowd) -> list[dict[str, Any]]:
    """Starts the service, and returns what each kind of request gives when nobody disturbs it."""
    fleet.tend()
    with httpx.Client(timeout=90, trust_env=False) as http:
        for url in fleet.urls:
            until(lambda url=url: _is_ready(http, url), START_SECONDS)
        results = []
        for body in KINDS:
            response = crowd.insist(http, "POST", "/v1/fits", {202}, json=body, headers={"Prefer": "wait=60"})
            assert response is not None, crowd.findings
            fit = response.json()
            assert (fit["status"], fit["attempt"]) == ("succeeded", 1), fit
            results.append(fit["result"])
    return results


def _is_ready(http: httpx.Client, url: str) -> bool:
    try:
        return http.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


def _kill(fleet: Fleet, chance: random.Random, kills: int, seconds: float) -> Counter[str]:
    """Returns how many of each kind were killed; a moment at which none of the kind lives is passed over."""
    killed: Counter[str] = Counter()
    due = time.monotonic()
    end = due + 3 * seconds
    while killed.total() < kills and due < end:
        kind = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
        due += chance.expovariate(kills / seconds)
        while time.monotonic() < due:
            fleet.tend()
            time.sleep(_LOOK_SECONDS)
        killed[kind] += fleet.kill_one(kind, chance)
        fleet.tend()
    return killed


def _wait_for(threads: list[threading.Thread], fleet: Fleet, crowd: Crowd) -> None:
    """Waits until every client has seen its last fit end; keepers may pause before they start a worker."""
    deadline = time.monotonic() + _CALM_SECONDS
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        fleet.tend()
        threads[0].join(_LOOK_SECONDS)
        time.sleep(_LOOK_SECONDS)
    if any(thread.is_alive() for thread in threads):
        crowd.findings.append(f"clients still wait {_CALM_SECONDS} s after the last kill")
    crowd.given_up.set()
    for thread in threads:
        thread.join()


def main() -> int:
    """Runs it as a program."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), required=True)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mixserve-chaos-"))
    begun = time.monotonic()
    with ExitStack() as stack:
        url = ""
        if given.database == "postgresql":
            url = stack.enter_context(running_postgresql()).create(migrated=False)
        outcome = run(
            folder, url, kills=given.kills, seconds=given.seconds, seed=given.seed, clients=given.clients
        )
    print(
        f"{given.database}, seed {given.seed}: {outcome.killed.total()} killed {dict(outcome.killed)}, "
        f"{outcome.n_promised} fits promised, {time.monotonic() - begun:.0f} s, "
        f"{len(outcome.findings)} promises broken"
    )
    for finding in outcome.findings:
        print(" ", finding)
    if outcome.findings:
        print(f"the data and the log are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
