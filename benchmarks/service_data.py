"""The data plane: how fast and in how little memory points come in, and are fitted where they lie.

    python -m benchmarks.service_data upload            # 1e6 x 16 as NPY against a copy of the file
    python -m benchmarks.service_data memory            # 2 GB in each format (--gigabytes, --formats npy csv)
    python -m benchmarks.service_data fit               # a mapped dataset of 4 GB (--gigabytes)
    python -m benchmarks.service_data answers           # log-densities in Arrow (--points 100000000)

Prints lines of JSON. The goals: an upload at 40 % of the speed of a copy, less than 300 MB over the base for
uploads of 2 GB, and a mapped fit within 1.5 GB beside mapped pages, at 70 % of the rate of one in memory.
"""

import argparse
import io
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch

from service.codecs.registry import ARROW, CSV, NPY, PARQUET
from service.mixture import FitOptions, FitReport, fit
from service.storage.dataset_store import DatasetStore
from service.worker.fitting import points_of
from tests.serving import GOLD, Server, serving

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


def post(server: Server, path: Path, media_type: str) -> float:
    """Seconds of one upload, whose dataset is deleted again; sent by the kernel, at next to no cost."""
    http = HTTPConnection(urlsplit(server.url).netloc, timeout=600)
    with closing(http), path.open("rb") as file:
        begun = time.perf_counter()
        http.putrequest("POST", "/v1/datasets")
        http.putheader("Content-Type", media_type)
        http.putheader("Content-Length", str(path.stat().st_size))
        http.endheaders()
        http.sock.sendfile(file)
        answer = http.getresponse()
        made = json.loads(answer.read())
        seconds = time.perf_counter() - begun
        if answer.status != 201:
            raise SystemExit(made)
    with server.client() as client:
        client.delete(f"/v1/datasets/{made['id']}").raise_for_status()
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
    points = np.random.default_rng(0).standard_normal((1_000_000, N_FEATURES))
    np.save(path, points, allow_pickle=False)
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


def memory(folder: Path, gigabytes: float, formats: list[str]) -> None:
    n_chunks = max(1, int(gigabytes * 1e9) // (8 * N_FEATURES * ROWS_AT_ONCE))
    with serving(folder / "data", workers=0, max_body_bytes=1 << 40) as server:
        for name in formats:
            media_type, write = FORMATS[name]
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


FORMATS = {"npy": (NPY, _npy), "arrow": (ARROW, _arrow), "parquet": (PARQUET, _parquet), "csv": (CSV, _csv)}


def mapped_fit(folder: Path, gigabytes: float, compared_gigabytes: float) -> None:
    """The same few passes over both, tolerance 0: a step, and what every fit does before and after."""
    store = DatasetStore(folder / "datasets")
    options = FitOptions((4,), n_init=1, max_steps=2, tolerance=0.0)
    large = _stored(store, gigabytes)
    base = memory_bytes("self", "RssAnon")
    with highest("self", "RssAnon") as growth:
        file = store.open(large)
        report = fit(points_of(file), options)
    small = _stored(store, min(gigabytes, compared_gigabytes))
    rates: dict[str, list[float]] = {"mapped": [], "in memory": []}
    for kind in ("mapped", "in memory") * 2:
        compared = store.open(small)
        points = points_of(compared) if kind == "mapped" else torch.from_numpy(compared.columns())
        again = fit(points, options)
        rates[kind].append(_points_per_second(compared.n_rows, again))
    said(
        benchmark="mapped fit",
        dataset_bytes=file.n_rows * N_FEATURES * 8,
        seconds=report.result["elapsed_seconds"],
        n_passes=report.result["n_passes"],
        anonymous_bytes=base + growth(),
        points_per_second=_points_per_second(file.n_rows, report),
        compared_bytes=compared.n_rows * N_FEATURES * 8,
        compared_points_per_second=rates,
        share_of_in_memory_rate=round(max(rates["mapped"]) / max(rates["in memory"]), 3),
        goals={"anonymous_bytes": 1_500_000_000, "share_of_in_memory_rate": 0.7},
    )


def _stored(store: DatasetStore, gigabytes: float) -> str:
    with store.draft(N_FEATURES) as draft:
        for chunk in rows(max(1, int(gigabytes * 1e9) // (8 * N_FEATURES * ROWS_AT_ONCE))):
            draft.append(chunk)
        draft.finish()
        store.publish(draft)
        return draft.sha256


def _points_per_second(n_rows: int, report: FitReport) -> float:
    return float(n_rows * report.result["n_passes"] / report.result["elapsed_seconds"])


def answers(folder: Path, n_points: int) -> None:
    """Points of two features as Arrow in, their log-densities as Arrow out, neither kept anywhere else."""
    settings = {"max_body_bytes": 1 << 40, "max_answer_bytes": 1 << 40}
    with serving(folder / "data", workers=0, **settings) as server, server.client(timeout=600) as http:
        created = http.post("/v1/mixtures", json=GOLD).raise_for_status().json()
        path = f"/v1/mixtures/{created['id']}/log-density"
        headers = {"Content-Type": ARROW, "Accept": ARROW}
        warm = b"".join(_arrow_stream(1000))
        http.post(path, content=warm, headers=headers).raise_for_status()
        begun = time.perf_counter()
        with highest(server.process.pid, "RssAnon") as growth:
            body = _arrow_stream(n_points)
            with http.stream("POST", path, content=body, headers=headers) as answer:
                if answer.status_code != 200:
                    raise SystemExit(answer.read().decode())
                n_answer_bytes = sum(len(piece) for piece in answer.iter_raw())
        seconds = time.perf_counter() - begun
    said(
        benchmark="many answers in Arrow",
        n_points=n_points,
        answer_bytes=n_answer_bytes,
        seconds=seconds,
        growth_bytes=growth(),
        goal="the same for any number of points",
    )
    if n_answer_bytes < 8 * n_points:
        raise SystemExit("some points have no answer")


def _arrow_stream(n_points: int) -> Iterator[bytes]:
    """One block of points again and again, as a stream of record batches."""
    block = np.random.default_rng(0).standard_normal((2, ROWS_AT_ONCE))
    sink = io.BytesIO()

    def taken() -> bytes:
        piece = sink.getvalue()
        sink.seek(0)
        sink.truncate()
        return piece

    with pa.ipc.new_stream(sink, pa.schema([("x0", pa.float64()), ("x1", pa.float64())])) as writer:
        for start in range(0, n_points, ROWS_AT_ONCE):
            size = min(ROWS_AT_ONCE, n_points - start)
            writer.write_batch(pa.record_batch([part[:size] for part in block], names=["x0", "x1"]))
            yield taken()
    yield taken()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["upload", "memory", "fit", "answers"])
    parser.add_argument("--gigabytes", type=float)
    parser.add_argument("--compared", type=float, default=0.5, help="gigabytes to fit in memory, too; twice")
    parser.add_argument("--points", type=int, default=5_000_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="for memory")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        if given.what == "upload":
            upload(Path(name), given.times)
        elif given.what == "memory":
            memory(Path(name), given.gigabytes or 2.0, given.formats)
        elif given.what == "answers":
            answers(Path(name), given.points)
        else:
            mapped_fit(Path(name), given.gigabytes or 4.0, given.compared)


if __name__ == "__main__":
    main()
