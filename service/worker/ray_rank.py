"""A fit, or one rank of it, in a process that Ray has placed."""

import os
import socket
import threading
from multiprocessing import Pipe
from typing import Any

import ray
import torch
from structlog.contextvars import bound_contextvars

from service.logs import start_logging
from service.storage.dataset_store import DatasetStore, StorePlace
from service.worker import rank
from service.worker.messages import Lost, Start, Stop
from service.worker.ranks import Seat
from service.worker.reporting import Inbox, Reporter, finished

_HEARD_SECONDS = 1.0


class RayRank:
    """What is said to a rank and by it goes through a pipe, as between processes that share a machine.

    Ray ends the process when whoever placed it is gone.

    Args:
        log: The level and the format of its log, for `start_logging`; left to Ray unless given.
    """

    def __init__(self, log: tuple[str, str] | None) -> None:
        if log is not None:
            start_logging(*log)
        self._ours, self._theirs = Pipe()

    def is_there(self) -> bool:
        """Answers when it has its place."""
        return True

    def meeting(self) -> str:
        """Returns where the ranks of a fit can find each other: here."""
        address = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind((address, 0))
            return f"tcp://{address}:{free.getsockname()[1]}"

    def begin(self, seat: Seat, start: Start, store_place: StorePlace, n_threads: int) -> None:
        """Begins the fit, and returns at once."""
        if ray.util.get_node_ip_address().startswith("127."):
            os.environ.update(GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
        arguments = (seat, start, store_place, n_threads)
        threading.Thread(target=self._fit, args=arguments, daemon=True).start()

    def _fit(self, seat: Seat, start: Start, store_place: StorePlace, n_threads: int) -> None:
        try:
            if seat.size > 1:
                rank.main(seat, start, store_place, self._theirs, n_threads)
                return
            torch.set_num_threads(n_threads)
            reporter = Reporter(self._theirs, Inbox(self._theirs))
            with bound_contextvars(fit_id=start.claim.fit_id, worker_id=start.worker_id):
                self._theirs.send(finished(start, DatasetStore(*store_place), seat.device, reporter))
        except Exception as error:  # noqa: BLE001 - whatever it is, the fit cannot go on here
            self._theirs.send(Lost(f"rank {seat.rank} of {seat.size}: {type(error).__name__}: {error}"[:500]))

    def hear(self) -> list[Any]:
        """Returns what the rank has said since; waits for it for a while."""
        said = []
        wait = _HEARD_SECONDS
        while self._ours.poll(wait):
            said.append(self._ours.recv())
            wait = 0.0
        return said

    def stop(self, message: Stop) -> None:
        """Asks the fit to end at its next step."""
        self._ours.send(message)
