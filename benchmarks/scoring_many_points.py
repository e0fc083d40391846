"""A million points, and ten million samples, over HTTP beside the same in one process.

    python -m benchmarks.scoring_many_points [--rounds 5]

Prints two lines of JSON. `log_density`: 1e6 x 2 points posted as NPY and answered as NPY, beside the
call of `GaussianMixture.log_density` on the same array. `samples`: 1e7 x 2 points drawn and sent as NPY,
beside NumPy's `standard_normal` of as many numbers, and beside the draw alone. Each pair is taken in
turns; ratios are medians.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import torch

from benchmarks.mixture_machine import print_line
from service.client.points import as_npy
from service.mixture import GaussianMixture
from tests.serving import GOLD, serving

NPY = "application/x-npy"
N_POINTS, N_SAMPLES = 1_000_000, 10_000_000
GOAL_LOG_DENSITY, GOAL_SAMPLES = 0.6, 0.5
_ROOM = bytearray(1 << 20)


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def post(http: HTTPConnection, path: str, body: bytes, media_type: str) -> int:
    """Sends a body and receives an answer in NPY; returns its size in bytes.

    By a client that costs next to nothing: httpx takes 8 ms for eight megabytes of an answer.
    """
    http.request("POST", path, body, {"Content-Type": media_type, "Accept": NPY})
    response = http.getresponse()
    if response.status != 200:
        raise SystemExit(response.read().decode())
    return sum(iter(lambda: response.readinto(_ROOM), 0))


def log_density(http: HTTPConnection, path: str, mixture: GaussianMixture, rounds: int) -> None:
    """Measures the log-density of many points."""
    points = np.random.default_rng(0).standard_normal((N_POINTS, 2))
    body = as_npy(points)

    def over_http() -> None:
        if post(http, f"{path}/log-density", body, NPY) < 8 * N_POINTS:
            raise SystemExit("the answer is too short")

    def in_process() -> None:
        mixture.log_density(torch.from_numpy(points))

    _compare("log_density", over_http, {"in_process": in_process}, rounds, GOAL_LOG_DENSITY)


def samples(http: HTTPConnection, path: str, mixture: GaussianMixture, rounds: int) -> None:
    """Measures the drawing of many samples."""
    body = json.dumps({"n_samples": N_SAMPLES, "seed": 0}).encode()

    def over_http() -> None:
        if post(http, f"{path}/samples", body, "application/json") < 16 * N_SAMPLES:
            raise SystemExit("the answer is too short")

    def normals() -> None:
        np.random.default_rng(0).standard_normal((N_SAMPLES, 2))

    def in_process() -> None:
        for _ in mixture.sample_blocks(N_SAMPLES, 0):
            pass

    peers = {"standard_normal": normals, "in_process": in_process}
    _compare("samples", over_http, peers, rounds, GOAL_SAMPLES)


def _compare(
    what: str, over_http: Callable[[], None], peers: dict[str, Callable[[], None]], rounds: int, goal: float
) -> None:
    for act in (over_http, *peers.values()):
        act()
    taken = [(seconds(over_http), [seconds(peer) for peer in peers.values()]) for _ in range(rounds)]
    figures: dict[str, float] = {"seconds": statistics.median(ours for ours, _ in taken)}
    for index, name in enumerate(peers):
        figures[f"seconds_{name}"] = statistics.median(theirs[index] for _, theirs in taken)
        figures[f"ratio_{name}"] = statistics.median(theirs[index] / ours for ours, theirs in taken)
    print_line(benchmark="scoring_many_points", what=what, goal=goal, rounds=rounds, **figures)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    mixture = GaussianMixture.from_parameters(**GOLD).in_canonical_order()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), workers=0) as server,
        server.client() as client,
        closing(HTTPConnection(urlsplit(server.url).netloc, timeout=600)) as http,
    ):
        path = f"/v1/mixtures/{client.post('/v1/mixtures', json=GOLD).raise_for_status().json()['id']}"
        log_density(http, path, mixture, rounds)
        samples(http, path, mixture, rounds)


if __name__ == "__main__":
    main()
