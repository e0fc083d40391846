"""The main job from end to end, and what processes that are killed leave behind."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import GOLD, Server, command, environment, serving, until

ENDLESS = {
    "dataset": {"gold": GOLD, "n_samples": 1000},
    "n_components": 3,
    "optimizer": {"name": "sgd", "batch_size": 10},
    "max_steps": 10**9,
    "tolerance": 0,
    "n_init": 1,
}
SHORT = {"dataset": {"gold": GOLD}, "n_components": 3, "seed": 3}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    with serving(tmp_path_factory.mktemp("data"), database_url=url, lease_seconds=2) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def begun(http: httpx.Client, **change: Any) -> str:
    """Returns the path of a fit that would never end, once it runs."""
    path = http.post("/v1/fits", json=ENDLESS | change).headers["location"]
    until(lambda: http.get(path).json()["status"] == "running")
    return str(path)


def children(process_id: int) -> list[int]:
    """Returns a process's children and theirs."""
    by_thread = Path(f"/proc/{process_id}/task").glob("*/children")
    found = [int(child) for threads in by_thread for child in threads.read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def fitter(server: Server) -> int:
    """Returns the process that does the fitting, the worker's child."""
    (worker,) = (child for child in children(server.process.pid) if "worker" in _command_line(child))
    (process_id,) = (child for child in children(worker) if "spawn_main" in _command_line(child))
    return process_id


def _command_line(process_id: int) -> str:
    return Path(f"/proc/{process_id}/cmdline").read_text().replace("\0", " ")


def test_gold_is_drawn_fitted_and_recovered(http: httpx.Client) -> None:
    response = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"})
    assert response.status_code == 202
    fit = response.json()
    assert (fit["status"], fit["attempt"], fit["error"]) == ("succeeded", 1, None)
    assert fit["created_at"] <= fit["started_at"] <= fit["finished_at"]
    result = fit["result"]
    assert fit["progress"]["restarts_done"] <= fit["progress"]["n_init"] == 8
    # Told before the last step, from which the result comes.
    assert fit["progress"]["log_likelihood"] == pytest.approx(result["log_likelihood"], abs=0.1)
    assert result["outcome"] == "converged"
    assert result["n_parameters"] == 17
    assert result["recovery"]["adjusted_rand_index"] > 0.97
    assert result["bic"] == pytest.approx(17 * 6.907755278982137 - 2 * result["log_likelihood"])
    mixture = http.get(f"/v1/mixtures/{result['mixture_id']}").json()
    assert mixture["fit_id"] == fit["id"]
    assert {name: mixture[name] for name in result["mixture"]} == result["mixture"]
    points = http.get(f"/v1/datasets/{fit['dataset_id']}/points").json()["points"]
    asked = http.post(f"/v1/mixtures/{mixture['id']}/log-density", json={"points": points}).json()
    assert sum(asked["log_density"]) == pytest.approx(result["log_likelihood"], rel=1e-9)
    again = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"}).json()
    assert again["result"]["mixture"] == result["mixture"]
    listed = http.get(f"/v1/fits?dataset_id={fit['dataset_id']}&status=succeeded").json()["items"]
    assert [item["id"] for item in listed] == [fit["id"]]


def test_a_choice_of_components_and_families(http: httpx.Client) -> None:
    request = SHORT | {"n_components": [1, 2, 3, 4], "covariance_type": ["full", "diag"]}
    result = http.post("/v1/fits", json=request, headers={"Prefer": "wait=60"}).json()["result"]
    assert (result["n_components"], result["covariance_type"]) == (3, "full")
    assert len(result["candidates"]) == 8
    assert min(candidate["bic"] for candidate in result["candidates"]) == result["bic"]


def test_weights_count_points(http: httpx.Client) -> None:
    points = [[0.0], [1.0], [5.0], [7.0]]
    fits = [
        http.post("/v1/fits", json={"dataset": data, "n_components": 1}, headers={"Prefer": "wait=60"}).json()
        for data in (
            {"points": points, "weights": [2, 1, 0, 1]},
            {"points": [[0.0], [0.0], [1.0], [7.0]]},
        )
    ]
    means = [fit["result"]["mixture"]["means"][0][0] for fit in fits]
    assert means[0] == pytest.approx(2.0)
    assert means[1] == pytest.approx(means[0])
    assert fits[0]["result"]["bic"] == pytest.approx(fits[1]["result"]["bic"])


def test_a_collapsed_fit_says_what_to_change(http: httpx.Client) -> None:
    request = {"dataset": {"points": [[1.0, 2.0]] * 50}, "n_components": 3, "regularization": 0}
    fit = http.post("/v1/fits", json=request, headers={"Prefer": "wait=60"}).json()
    assert fit["status"] == "failed"
    assert fit["error"]["code"] in ("FIT_COLLAPSED", "INVALID_FIT")
    assert len(fit["error"]["message"]) > 40
    assert fit["result"] is None


def test_progress_is_told_while_a_fit_runs_and_a_cancel_ends_it(http: httpx.Client) -> None:
    path = http.post("/v1/fits", json=ENDLESS).headers["location"]
    steps: list[int] = []
    with http.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        for event in events:
            if event["type"] == "progress":
                steps.append(event["data"]["step"])
            if len(steps) == 3:
                asked = time.monotonic()
                assert http.post(f"{path}/cancel").json()["status"] in ("running", "cancelled")
                last = list(events)[-1]
                break
    assert steps == sorted(steps)
    assert last["data"]["status"] == "cancelled"
    # The contract's two seconds, and a little for a machine that runs other tests beside this one.
    assert time.monotonic() - asked < 2 + 1
    fit = http.get(path).json()
    assert (fit["status"], fit["result"], fit["error"]) == ("cancelled", None, None)


def test_a_fit_that_takes_too_long_ends(http: httpx.Client) -> None:
    fit = http.post("/v1/fits", json=ENDLESS | {"timeout_seconds": 1}, headers={"Prefer": "wait=30"}).json()
    assert (fit["status"], fit["error"]["code"]) == ("failed", "TIMED_OUT")
    assert "1" in fit["error"]["message"]


def test_a_worker_says_what_it_computes_on_and_what_it_runs(http: httpx.Client) -> None:
    path = begun(http)
    (worker,) = http.get("/v1/workers").json()["items"]
    assert worker["device"]["type"] in ("cpu", "cuda")
    assert worker["device"]["name"]
    assert worker["device"]["memory_bytes"] > 10**8
    assert worker["device"]["n_devices"] >= 1
    assert worker["running_fit_ids"] == [path.rpartition("/")[2]]
    http.post(f"{path}/cancel")
    until(lambda: http.get("/v1/workers").json()["items"][0]["running_fit_ids"] == [])


def test_a_fit_that_no_memory_would_hold_is_refused(http: httpx.Client) -> None:
    request = SHORT | {"dataset": {"gold": GOLD, "n_samples": 5000}, "n_components": 5000, "n_init": 10_000}
    response = http.post("/v1/fits", json=request)
    assert (response.status_code, response.json()["code"]) == (422, "FIT_TOO_LARGE")
    assert (
        str(http.get("/v1/workers").json()["items"][0]["device"]["memory_bytes"]) in response.json()["detail"]
    )


def test_a_fit_on_more_devices_than_any_worker_has_is_refused(http: httpx.Client) -> None:
    there = http.get("/v1/workers").json()["items"][0]["device"]["n_devices"]
    response = http.post("/v1/fits", json=SHORT | {"devices": there + 1})
    assert (response.status_code, response.json()["code"]) == (422, "DEVICE_UNAVAILABLE")
    assert f"devices: {there + 1} are more than any worker has; ask for {there}" in response.json()["detail"]


@pytest.mark.parametrize("victim", ["fitter", "worker"])
def test_a_killed_process_loses_no_fit(server: Server, http: httpx.Client, victim: str) -> None:
    undisturbed = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"}).json()
    blocker = begun(http)
    waiting = http.post("/v1/fits", json=SHORT).headers["location"]
    process_id = fitter(server)
    if victim == "worker":
        process_id = int(Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(process_id, signal.SIGKILL)
    until(lambda: http.get(blocker).json()["attempt"] == 2)
    http.post(f"{blocker}/cancel")
    fit = http.get(waiting, headers={"Prefer": "wait=60"}).json()
    assert fit["status"] == "succeeded"
    assert fit["result"]["mixture"] == undisturbed["result"]["mixture"]
    assert until(lambda: http.get(blocker).json()["status"]) in ("running", "cancelled")
    until(lambda: http.get(blocker).json()["status"] == "cancelled")


def test_a_killed_server_finds_everything_again(tmp_path: Path) -> None:
    with serving(tmp_path, lease_seconds=2) as server, server.client() as http:
        done = http.post("/v1/fits", json=SHORT, headers={"Prefer": "wait=60"}).json()
        key = {"Idempotency-Key": "once"}
        running = http.post("/v1/fits", json=ENDLESS, headers=key).headers["location"]
        until(lambda: http.get(running).json()["status"] == "running")
        below = children(server.process.pid)
        assert len(below) >= 2
        server.stop(signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in below))
    with serving(tmp_path, lease_seconds=2) as server, server.client() as http:
        assert http.get(f"/v1/fits/{done['id']}").json() == done
        assert http.post("/v1/fits", json=ENDLESS, headers=key).headers["location"] == running
        until(lambda: http.get(running).json()["attempt"] == 2)
        http.post(f"{running}/cancel")
        until(lambda: http.get(running).json()["status"] == "cancelled")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_told_to_end_gives_its_fit_back_and_does_not_wait_for_streams(
    tmp_path: Path, number: signal.Signals
) -> None:
    with serving(tmp_path) as server, server.client() as http:
        path = begun(http)
        below = children(server.process.pid)
        with http.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()
            next(line for line in lines if line.startswith("id: 2"))
            told = time.monotonic()
            assert server.stop(number) == 0
            assert time.monotonic() - told < 10
            assert [line for line in lines if line][-1].startswith("retry:")
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in below), seconds=5)
        assert "Traceback" not in server.log
    with serving(tmp_path, workers=0) as server, server.client() as http:
        fit = http.get(path).json()
        assert (fit["status"], fit["attempt"]) == ("queued", 1)


@pytest.mark.parametrize(
    ("arguments", "settings", "saying"),
    [
        (["--host", "0.0.0.0"], {}, "MIXSERVE_AUTH"),
        (["--port", "{taken}"], {}, "choose another --port"),
        ([], {"database_url": "mysql://x"}, "postgresql+psycopg://"),
        ([], {"lease_seconds": "soon"}, "MIXSERVE_LEASE_SECONDS"),
        ([], {"dataset_store_url": "ftp://x"}, "file:///"),
        ([], {"data_dir": "/proc/nowhere"}, "/proc/nowhere"),
        (["--device", "cuda:77"], {}, "cuda:77"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], saying: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        filled = [argument.format(taken=taken.getsockname()[1]) for argument in arguments]
        ended = subprocess.run(
            command("serve", *filled),
            env=environment(**{"data_dir": tmp_path} | settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert saying in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_numbers(tmp_path: Path) -> None:
    request = ENDLESS | {"max_steps": 7_000, "seed": 5}
    with serving(tmp_path, lease_seconds=2, checkpoint_seconds=0.2) as server, server.client() as http:

        def ended(path: str) -> Any:
            def fit() -> Any:
                answer = http.get(path, headers={"Prefer": "wait=30"}).json()
                return answer if answer["status"] == "succeeded" else None

            return until(fit, 150)

        whole = ended(http.post("/v1/fits", json=request).headers["location"])
        path = http.post("/v1/fits", json=request).headers["location"]
        until(lambda: (http.get(path).json()["progress"] or {}).get("step", 0) > 2500)
        os.kill(fitter(server), signal.SIGKILL)
        until(lambda: http.get(path).json()["attempt"] == 2)
        steps = until(lambda: (http.get(path).json()["progress"] or {}).get("step"))
        resumed = ended(path)
    assert steps > 1000
    assert resumed["attempt"] == 2
    for name in ("mixture", "log_likelihood", "n_steps", "n_passes", "optima"):
        assert resumed["result"][name] == whole["result"][name], name
