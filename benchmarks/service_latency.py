"""What the service adds to a fit: from `POST /v1/fits` of 1000 x 2 points with `Prefer: wait` to the answer.

    python -m benchmarks.service_latency

Prints one line of JSON. `added` is the time of the whole call as its client sees it, less the fit's own
`elapsed_seconds`; the goal is a median of at most 50 ms.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np

from tests.serving import serving

GOAL_MILLISECONDS = 50.0
N_WARM_UPS = 3


def points_of(seed: int) -> list[list[float]]:
    """1000 points of three groups in the plane, other ones for every seed."""
    generator = np.random.default_rng(seed)
    centers = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    drawn = centers[generator.integers(0, 3, 1000)] + 0.3 * generator.standard_normal((1000, 2))
    points: list[list[float]] = drawn.tolist()
    return points


def timed(http: httpx.Client, seed: int) -> tuple[float, float]:
    """Seconds of one call, and of the fit within it."""
    body = {"dataset": {"points": points_of(seed)}, "n_components": 3, "seed": seed}
    begun = time.perf_counter()
    answer = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"})
    fit = answer.json()
    seconds = time.perf_counter() - begun
    if answer.status_code != 202 or fit["status"] != "succeeded":
        raise SystemExit(f"{answer.status_code}: {answer.text[:300]}")
    return seconds, fit["result"]["elapsed_seconds"]


def measure(n: int) -> list[tuple[float, float]]:
    """The times of `n` calls, one after the other, to a service of one worker on SQLite."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server, server.client() as http:
        return [timed(http, seed) for seed in range(n + N_WARM_UPS)][N_WARM_UPS:]


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=20, help="calls to take the median of")
    n = parser.parse_args().n
    times = measure(n)
    added = sorted(1000 * (whole - fit) for whole, fit in times)
    line = {
        "benchmark": "service_latency",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "n": n,
        "added_milliseconds": {
            "median": round(statistics.median(added), 2),
            "smallest": round(added[0], 2),
            "largest": round(added[-1], 2),
        },
        "goal_milliseconds": GOAL_MILLISECONDS,
        "fit_milliseconds_median": round(1000 * statistics.median(fit for _, fit in times), 2),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load_1m": round(os.getloadavg()[0], 2),
        },
        "versions": {
            name: version(name) for name in ("mixserve", "torch", "fastapi", "uvicorn", "sqlalchemy")
        }
        | {"python": platform.python_version()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
