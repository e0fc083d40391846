"""Asks a service of its own for the answers that the OpenAPI document shows, and writes them down.

    python scripts/record_examples.py

Run it when the fields of an answer have changed, look at the difference, and run `make openapi`.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from service.schemas.mixture import GOLD

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "service" / "schemas" / "examples"
QUESTION = {"points": [[0.0, 0.0], [1.0, 1.0]]}


def main() -> None:
    """Writes every example."""
    sys.path.insert(0, str(ROOT / "examples"))
    from running_server import running_server

    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as shared:
        url = f"file://{shared}"
        pq.write_table(pa.table({"height": [1.0, 3.0], "width": [2.0, 4.5]}), f"{shared}/0.parquet")
        with (
            running_server(MIXSERVE_DATASET_PREFIXES=url) as address,
            httpx.Client(base_url=address, timeout=90, trust_env=False) as http,
        ):
            for name, examples in _recorded(http, url).items():
                (FOLDER / f"{name}.json").write_text(json.dumps(examples, indent=1) + "\n")


def _recorded(http: httpx.Client, url: str) -> dict[str, list[Any]]:
    def asked(method: str, path: str, body: Any = None, **headers: str) -> Any:
        headers["Accept"] = "application/json"
        return http.request(method, path, json=body, headers=headers).raise_for_status().json()

    request = {"points": [[1.0, 2.0], [3.0, 4.5]], "name": "two points", "columns": ["height", "width"]}
    uploaded = asked("POST", "/v1/datasets", request)
    gold = asked("POST", "/v1/datasets", {"gold": GOLD, "n_samples": 1000, "seed": 0, "name": "gold"})
    elsewhere = asked("POST", "/v1/datasets", {"url": url, "name": "elsewhere"})
    # The time limit comes at once.
    late = {"dataset": {"id": gold["id"]}, "n_components": 3, "tolerance": 0, "timeout_seconds": 1e-3}
    failed = asked("POST", "/v1/fits", late | {"max_steps": 1_000_000}, Prefer="wait=60")
    wanted = {"dataset": {"id": gold["id"]}, "n_components": 3, "n_init": 2, "metadata": {"asked by": "me"}}
    queued = asked("POST", "/v1/fits", wanted)
    ended = asked("GET", f"/v1/fits/{queued['id']}", Prefer="wait=60")
    mixture_path = f"/v1/mixtures/{ended['result']['mixture_id']}"
    (worker,) = asked("GET", "/v1/workers")["items"]
    worker["hostname"], worker["device"]["name"] = "worker-1", "2 cores"
    return {
        "Dataset": [uploaded, gold, elsewhere | {"url": "s3://measurements/2026/november"}],
        "DatasetPoints": [asked("GET", f"/v1/datasets/{gold['id']}/points?limit=2")],
        "Fit": [queued, failed, ended],
        "FitEvent": asked("GET", f"/v1/fits/{queued['id']}/events")["items"],
        "Mixture": [asked("GET", mixture_path)],
        "LogDensityAnswer": [
            asked("POST", f"{mixture_path}/log-density", QUESTION),
            asked("POST", f"{mixture_path}/log-density?per_component=true", QUESTION),
        ],
        "ResponsibilitiesAnswer": [asked("POST", f"{mixture_path}/responsibilities", QUESTION)],
        "SamplesAnswer": [asked("POST", f"{mixture_path}/samples", {"n_samples": 2, "seed": 0})],
        "Worker": [worker],
        "Health": [asked("GET", "/readyz")],
    }


if __name__ == "__main__":
    main()
