"""Latency of one-point questions at fixed rates of arrival, alone and beside another client's million points.

    python -m benchmarks.scoring_latency [--seconds 5] [--rounds 3]

Requests are due at the times of a Poisson process, settled beforehand, and their latency counts from
when they were due (open model): a slow server does not slow the clients. Prints one line of JSON for
each rate, and one for each media type in which another client sends a million points, again and again,
with and without it in turns. The goal: at the 99th percentile it delays others by at most 20 ms.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from benchmarks.http_load import open_loop, percentile, post_points
from benchmarks.mixture_machine import print_line
from service.client.points import as_npy
from tests.serving import GOLD, serving

RATES = (50, 100, 200, 400, 800)
RATE_BESIDE = 100
GOAL_MILLISECONDS = 20.0
N_POINTS = 1_000_000
NPY, JSON = "application/x-npy", "application/json"


def send_for_ever(url: str, media_type: str) -> None:
    """Asks for the log-density of many points until it is killed."""
    points = np.random.default_rng(0).standard_normal((N_POINTS, 2))
    body = as_npy(points) if media_type == NPY else json.dumps({"points": points.tolist()}).encode()
    with httpx.Client(trust_env=False, timeout=120) as http:
        while True:
            http.post(url, content=body, headers={"Content-Type": media_type, "Accept": media_type})


def milliseconds(url: str, rate: float, seconds: float, seed: int) -> list[float]:
    """The latencies of one-point questions."""
    request = post_points(url, [[0.25, -0.5]])
    return [1000 * one for one in open_loop(url, request, rate=rate, seconds=seconds, seed=seed)]


def beside(url: str, media_type: str, seconds: float, rounds: int) -> None:
    """Measures in turns with and without the other client, and prints both."""
    alone: list[float] = []
    among: list[float] = []
    for seed in range(rounds):
        alone.append(percentile(milliseconds(url, RATE_BESIDE, seconds, seed), 99))
        other = multiprocessing.get_context("spawn").Process(target=send_for_ever, args=(url, media_type))
        other.start()
        time.sleep(4.0)  # it makes its points
        among.append(percentile(milliseconds(url, RATE_BESIDE, seconds, seed), 99))
        other.kill()
        other.join()
    print_line(
        benchmark="scoring_latency",
        beside=f"{N_POINTS} points in {media_type}",
        rate=RATE_BESIDE,
        p99_alone_milliseconds=statistics.median(alone),
        p99_beside_milliseconds=statistics.median(among),
        delay_milliseconds=statistics.median(b - a for a, b in zip(alone, among, strict=True)),
        goal_milliseconds=GOAL_MILLISECONDS,
        rounds=rounds,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), workers=0) as server:
        with server.client() as http:
            mixture = http.post("/v1/mixtures", json=GOLD).raise_for_status().json()
        url = f"{server.url}/v1/mixtures/{mixture['id']}/log-density"
        milliseconds(url, 100, 1.0, 0)
        for rate in RATES:
            taken = milliseconds(url, rate, options.seconds, rate)
            print_line(
                benchmark="scoring_latency",
                rate=rate,
                n=len(taken),
                p50_milliseconds=percentile(taken, 50),
                p99_milliseconds=percentile(taken, 99),
                largest_milliseconds=max(taken),
            )
        for media_type in (NPY, JSON):
            beside(url, media_type, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
