"""The ranks of one fit on this machine, started by torchrun's launcher: they begin, and end, together."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, start_processes  # noqa: TID251  a gang is made of its processes
from torch.multiprocessing import _prctl_pr_set_pdeathsig  # type: ignore[attr-defined]

from service.logs import start_logging
from service.settings import Settings
from service.storage.dataset_store import DatasetStore, StorePlace
from service.storage.queue import Claim
from service.storage.workers import Device
from service.worker import rank
from service.worker.messages import Asked, Checkpointed, Finished, Progressed, Start, Stop
from service.worker.ranks import Seat
from service.worker.reporting import Inbox

# It tells of every process that it ends, each time a fit is done.
logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)

# With "auto", a GPU is given so many points at least; more ranks would wait for one another's sums.
BYTES_PER_GPU = 1 << 30
_LOOK_SECONDS = 0.1
# Ranks of one machine speak to each other only; gloo and NCCL would listen on every network there is.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


class GangLost(Exception):
    """A rank has ended without a last word, so that its fit cannot go on."""


def devices_for(claim: Claim, device: Device) -> list[str]:
    """Returns what each rank of a fit computes on, of what a worker has, by torch's names.

    With "auto" that is one GPU for each `BYTES_PER_GPU` of the points, as far as there are; and one rank on
    a CPU, whose cores share a pass as threads.
    """
    wanted, on_cpu = claim.request.get("devices", 1), "cpu" in (claim.request["device"], device.type)
    if wanted == "auto":
        size_bytes = 8 * claim.n_samples * claim.n_features
        wanted = 1 if on_cpu else min(device.n_devices, 1 + size_bytes // BYTES_PER_GPU)
    if wanted == 1:
        return [device.device]
    return ["cpu" if on_cpu else f"cuda:{place}" for place in range(wanted)]


class Gang:
    """The processes of a fit's ranks, each with a share of the points.

    Args:
        start: The fit.
        devices: What each rank computes on, rank 0 first.
        store_place: Where the points are.
        settings: How they are to log; only Python's last resort unless given.
    """

    def __init__(
        self, start: Start, devices: list[str], store_place: StorePlace, settings: Settings | None = None
    ) -> None:
        store = DatasetStore(*store_place)
        stored = None if start.claim.url is not None else start.claim.dataset_sha256
        for sha256 in filter(None, (stored, start.claim.weights_sha256)):
            store.open(sha256)  # fetched once, before all ranks want it
        size = len(devices)
        n_threads = max(1, len(os.sched_getaffinity(0)) // size)
        self._meeting = store.scratch_path()
        meeting = self._meeting.as_uri()
        pipes = [Pipe() for _ in devices]
        self._connections: list[Connection] = [ours for ours, _ in pipes]
        arguments = {
            place: (
                settings,
                Seat(place, size, meeting, device),
                start,
                store_place,
                pipes[place][1],
                n_threads,
            )
            for place, device in enumerate(devices)
        }
        with _environment(OMP_NUM_THREADS=str(n_threads), **_LOOPBACK):
            self._processes = start_processes(
                "rank", _enter, arguments, {place: {} for place in arguments}, DefaultLogsSpecs(os.devnull)
            )
        for _, theirs in pipes:
            theirs.close()

    @property
    def process_ids(self) -> list[int]:
        """Of the ranks, rank 0 first."""
        return [self._processes.pids()[place] for place in range(len(self._connections))]

    def stop(self, outcome: Asked) -> None:
        """Asks the fit to end at the next step, with this outcome."""
        self._connections[0].send(Stop(outcome))

    def listen(self) -> Progressed | Checkpointed | Finished | None:
        """Returns the next word of a rank, or None when there is none for a moment.

        Raises:
            GangLost: A rank has died; the others have been ended.
        """
        for connection in wait(self._connections, _LOOK_SECONDS):
            assert isinstance(connection, Connection), "nothing else was waited for"  # noqa: S101
            try:
                return connection.recv()  # type: ignore[no-any-return]
            except (EOFError, OSError):
                break  # its process says more
        over = self._processes.wait(timeout=0)
        if over is not None:
            lost = [f"rank {place} by {failure.exitcode}" for place, failure in over.failures.items()]
            raise GangLost(f"{' and '.join(lost) or 'a rank'} has ended before the fit")
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close(signal.SIGKILL)
        for connection in self._connections:
            connection.close()
        self._meeting.unlink(missing_ok=True)


def _enter(settings: Settings | None, *arguments: Any) -> None:
    """One rank, in a process that ends with this one's, and be it frozen."""
    if settings is not None:
        start_logging(settings.log_level, settings.log_format)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor decides
    _prctl_pr_set_pdeathsig(signal.SIGKILL)
    rank.main(*arguments)


def finished(gang: Gang, connection: Connection, inbox: Inbox) -> Finished:
    """Returns how a gang's fit ended; what it says before goes through the connection.

    Raises:
        GangLost: A rank has died.
    """
    told = False
    while True:
        message = gang.listen()
        if isinstance(message, Finished):
            return message
        if message is not None:
            connection.send(message)
        if inbox.told_to_stop is not None and not told:
            gang.stop(inbox.told_to_stop)
            told = True


@contextmanager
def _environment(**given: str) -> Iterator[None]:
    """Has processes that are started meanwhile find these variables."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
