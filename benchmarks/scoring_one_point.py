"""Log-densities of one point as JSON: requests a second beside a bare FastAPI endpoint and mlflow's server.

    python -m benchmarks.scoring_one_point [--seconds 3] [--rounds 5] [--mlflow]

Prints one line of JSON for each peer. The bare endpoint parses the same body and returns a constant,
under the same uvicorn settings; `--mlflow` installs mlflow and scikit-learn into a folder that is
removed afterwards (about 1 GB, some minutes) and has `mlflow models serve` answer a scikit-learn
mixture's `predict_proba`. The servers take turns in rounds, and the ratios are medians over the rounds:
of requests a second, and of the servers' processor time for a request.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.http_load import closed_loop, post, post_points
from benchmarks.mixture_machine import print_line
from tests import serving

POINT = [0.25, -0.5]
GOAL_BARE, GOAL_MLFLOW = 0.7, 5.0
N_CONNECTIONS = 8
_START_SECONDS = 120

_TRAIN = """
import sys
import mlflow.sklearn
import numpy as np
from sklearn.mixture import GaussianMixture
points = np.random.default_rng(0).normal(size=(1000, 2))
mixture = GaussianMixture(3, random_state=0).fit(points)
mlflow.sklearn.save_model(mixture, sys.argv[1], pyfunc_predict_fn="predict_proba")
"""


@dataclass
class Target:
    """A server to ask: its process, and the request that it is sent."""

    name: str
    url: str
    request: bytes
    process_id: int

    def processor_seconds(self) -> float:
        """What the process and its children have used so far."""
        return sum(processor_seconds(pid) for pid in _family(self.process_id))


def _family(process_id: int) -> list[int]:
    children = Path(f"/proc/{process_id}/task/{process_id}/children")
    try:
        own = [int(child) for child in children.read_text().split()]
    except FileNotFoundError:
        return []
    return [process_id, *(pid for child in own for pid in _family(child))]


def processor_seconds(process_id: int) -> float:
    """What a process has used so far, its children apart."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(
    command: list[str], port: int, environment: dict[str, str] | None = None, log: Path = Path(os.devnull)
) -> Iterator[int]:
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"this server does not start: {' '.join(command)}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextmanager
def bare() -> Iterator[Target]:
    """Yields the bare endpoint, served as `mixserve serve` does."""
    port = _free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "critical"]
    url = f"http://127.0.0.1:{port}/log-density"
    command = [sys.executable, "-m", "uvicorn", "benchmarks.bare_endpoint:app", *options]
    with _process(command, port) as process_id:
        yield Target("bare", url, post_points(url, [POINT]), process_id)


@contextmanager
def ours() -> Iterator[Target]:
    """Yields the service on SQLite, its log in a file, with a mixture of three components in the plane."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--data-dir", folder, "--workers", "0"]
        log = Path(folder, "log")
        with _process(serving.command("serve", *options), port, serving.environment(), log) as process_id:
            mixtures = f"http://127.0.0.1:{port}/v1/mixtures"
            mixture = httpx.post(mixtures, json=serving.GOLD, trust_env=False).raise_for_status().json()
            url = f"{mixtures}/{mixture['id']}/log-density"
            yield Target("ours", url, post_points(url, [POINT]), process_id)


@contextmanager
def mlflow(environment_folder: str) -> Iterator[Target]:
    """Yields mlflow's server of a scikit-learn mixture, from an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        binaries = Path(environment_folder or Path(folder, "environment"), "bin")
        if not (binaries / "mlflow").exists():
            subprocess.run([sys.executable, "-m", "venv", binaries.parent], check=True)
            subprocess.run([binaries / "pip", "install", "--quiet", "mlflow", "scikit-learn"], check=True)
        model, port = Path(folder, "model"), _free_port()
        subprocess.run([binaries / "python", "-c", textwrap.dedent(_TRAIN), model], check=True)
        command = [str(binaries / "mlflow"), "models", "serve", "--model-uri", str(model)]
        options = ["--port", str(port), "--env-manager", "local"]
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
        url = f"http://127.0.0.1:{port}/invocations"
        with _process([*command, *options], port, environment) as process_id:
            yield Target("mlflow", url, post(url, b'{"inputs": [[0.25, -0.5]]}'), process_id)


def measure(target: Target, seconds: float) -> tuple[float, float]:
    """Requests a second, and the server's processor seconds for each."""
    before = target.processor_seconds()
    rate = closed_loop(target.url, target.request, n_connections=N_CONNECTIONS, seconds=seconds)
    return rate, (target.processor_seconds() - before) / (rate * seconds)


def compare(target: Target, peer: Target, rounds: int, seconds: float, goal: float) -> None:
    """Measures both in turns and prints how many times as fast the first one is."""
    for one in (target, peer):
        measure(one, 1.0)
    pairs = [(measure(target, seconds), measure(peer, seconds)) for _ in range(rounds)]
    print_line(
        benchmark="scoring_one_point",
        peer=peer.name,
        requests_per_second=statistics.median(ours for (ours, _), _ in pairs),
        peer_requests_per_second=statistics.median(theirs for _, (theirs, _) in pairs),
        ratio=statistics.median(ours / theirs for (ours, _), (theirs, _) in pairs),
        ratio_of_processor_time=statistics.median(theirs / ours for (_, ours), (_, theirs) in pairs),
        goal=goal,
        connections=N_CONNECTIONS,
        rounds=rounds,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="also beside mlflow, from the environment in this folder if there is one, else made for the run",
    )
    options = parser.parse_args()
    with ours() as target:
        with bare() as peer:
            compare(target, peer, options.rounds, options.seconds, GOAL_BARE)
        if options.mlflow is not None:
            with mlflow(options.mlflow) as peer:
                compare(target, peer, options.rounds, options.seconds, GOAL_MLFLOW)


if __name__ == "__main__":
    main()
