"""The data plane: how fast and in how little memory points come in, and are fitted where they lie.

    python -m benchmarks.service_data upload            # 1e6 x 16 as NPY against a copy of the file
    python -m benchmarks.service_data memory            # 2 GB in NPY, Arrow, Parquet and CSV (--gigabytes)
    python -m benchmarks.service_data fit               # a mapped dataset of 4 GB (--gigabytes)

Prints lines of JSON. The goals: an upload at 40 % of the speed of a copy, less than 300 MB over the base for
uploads of 2 GB, and a mapped fit within 1.5 GB beside mapped pages, at 70 % of the rate of one in memory.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from service.codecs.registry import ARROW, CSV, NPY, PARQUET
from service.mixture import FitOptions, fit
from service.storage.dataset_store import DatasetStore
from service.worker.fitting import points_of
from tests.serving import Server, serving

N_FEATURES, ROWS_AT_ONCE = 16, 65_536
PIECE_BYTES = 1 << 20


def said(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def memory_bytes(process_id: int | str, kind: str) -> int:
    """What /proc says of a process: VmRSS, or RssAnon without mapped files."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(kind))


@contextmanager
def highest(process_id: int | str, kind: str) -> Iterator[Callable[[], int]]:
    """Yields what tells the most bytes over those at the beginning."""
    base = most = memory_bytes(process_id, kind)
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, memory_bytes(process_id, kind))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: most - base
    finally:
        over.set()
        thread.join()


def rows(n_chunks: int) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Points of three groups, chunk by chunk."""
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 8, (3, N_FEATURES))
    for _ in range(n_chunks):
        noise = generator.standard_normal((ROWS_AT_ONCE, N_FEATURES))
        yield noise + centres[generator.integers(3, size=ROWS_AT_ONCE)]


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def post(server: Server, path: Path, media_type: str) -> float:
    """Seconds of one upload, whose dataset is deleted again."""
    headers = {"Content-Type": media_type, "Content-Length": str(path.stat().st_size)}
    with server.client(timeout=600) as http:
        begun = time.perf_counter()
        answer = http.post("/v1/datasets", content=pieces(path), headers=headers)
        seconds = time.perf_counter() - begun
        if answer.status_code != 201:
            raise SystemExit(answer.text)
        http.delete(f"/v1/datasets/{answer.json()['id']}").raise_for_status()
    return seconds


def copied(path: Path, target: Path) -> float:
    """Seconds of copying a file onto the disk, as durable as an upload."""
    begun = time.perf_counter()
    with path.open("rb") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, PIECE_BYTES)
        sink.flush()
        os.fsync(sink.fileno())
    seconds = time.perf_counter() - begun
    target.unlink()
    return seconds


def upload(folder: Path, n_times: int) -> None:
    path = folder / "points.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1_000_000, N_FEATURES)))
    with serving(folder / "data", workers=0) as server:
        post(server, path, NPY)
        pairs = [(post(server, path, NPY), copied(path, folder / "copy")) for _ in range(n_times)]
    uploads, copies = ([pair[index] for pair in pairs] for index in range(2))
    share = statistics.median(copies) / statistics.median(uploads)
    said(
        benchmark="upload 1e6 x 16 as NPY",
        upload_seconds=uploads,
        copy_seconds=copies,
        share_of_copy_speed=round(share, 3),
        goal=0.4,
    )


def memory(folder: Path, gigabytes: float) -> None:
    n_chunks = max(1, int(gigabytes * 1e9) // (8 * N_FEATURES * ROWS_AT_ONCE))
    with serving(folder / "data", workers=0, max_body_bytes=1 << 40) as server:
        for media_type, write in ((NPY, _npy), (ARROW, _arrow), (PARQUET, _parquet), (CSV, _csv)):
            path = folder / "points"
            write(path, n_chunks)
            with highest(server.process.pid, "VmRSS") as growth:
                seconds = post(server, path, media_type)
            said(
                benchmark="upload memory",
                media_type=media_type,
                body_bytes=path.stat().st_size,
                seconds=seconds,
                growth_bytes=growth(),
                goal=300_000_000,
            )
            path.unlink()


def _tables(n_chunks: int) -> Iterator[pa.RecordBatch]:
    for chunk in rows(n_chunks):
        columns = [np.ascontiguousarray(column) for column in chunk.T]
        yield pa.record_batch(columns, names=[f"x{index}" for index in range(N_FEATURES)])


def _npy(path: Path, n_chunks: int) -> None:
    shape = (n_chunks * ROWS_AT_ONCE, N_FEATURES)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=shape)
    for index, chunk in enumerate(rows(n_chunks)):
        out[index * ROWS_AT_ONCE : (index + 1) * ROWS_AT_ONCE] = chunk


def _arrow(path: Path, n_chunks: int) -> None:
    whole = pa.Table.from_batches(list(_tables(n_chunks))).combine_chunks()
    with pa.ipc.new_stream(str(path), whole.schema) as writer:
        writer.write_table(whole)  # as one batch, the worst there is


def _parquet(path: Path, n_chunks: int) -> None:
    batches = _tables(n_chunks)
    first = next(batches)
    with pa.parquet.ParquetWriter(str(path), first.schema, use_dictionary=False) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _csv(path: Path, n_chunks: int) -> None:
    batches = _tables(max(1, n_chunks // 3))  # a number as text takes more than twice its bytes
    first = next(batches)
    with pa.csv.CSVWriter(str(path), first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def mapped_fit(folder: Path, gigabytes: float) -> None:
    store = DatasetStore(folder / "datasets")
    options = FitOptions((4,), n_init=1, max_steps=5, tolerance=0.0)
    hashes = {}
    # In memory, points and their standardised copy: as much as this machine surely has.
    for size in (min(gigabytes, 1.0), gigabytes):
        with store.draft(N_FEATURES) as draft:
            for chunk in rows(max(1, int(size * 1e9) // (8 * N_FEATURES * ROWS_AT_ONCE))):
                draft.append(chunk)
            draft.finish()
            store.publish(draft)
            hashes[size] = draft.sha256, draft.n_rows
    rates: dict[str, float] = {}
    small, n_small = hashes[min(gigabytes, 1.0)]
    for kind in ("mapped", "in memory", "mapped", "in memory"):
        file = store.open(small)
        points = points_of(file) if kind == "mapped" else torch.from_numpy(file.columns())
        report = fit(points, options)
        rate = n_small * report.result["n_passes"] / report.result["elapsed_seconds"]
        rates[kind] = max(rate, rates.get(kind, 0.0))
    large, n_rows = hashes[gigabytes]
    with highest("self", "RssAnon") as growth:
        report = fit(points_of(store.open(large)), options)
    said(
        benchmark="mapped fit",
        dataset_bytes=n_rows * N_FEATURES * 8,
        seconds=report.result["elapsed_seconds"],
        anonymous_bytes_over_base=growth(),
        anonymous_bytes=memory_bytes("self", "RssAnon"),
        share_of_in_memory_rate=round(rates["mapped"] / rates["in memory"], 3),
        goals={"anonymous_bytes": 1_500_000_000, "share_of_in_memory_rate": 0.7},
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["upload", "memory", "fit"])
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        if given.what == "upload":
            upload(Path(name), given.times)
        elif given.what == "memory":
            memory(Path(name), given.gigabytes or 2.0)
        else:
            mapped_fit(Path(name), given.gigabytes or 4.0)


if __name__ == "__main__":
    main()
