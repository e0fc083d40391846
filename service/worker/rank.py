"""One rank of a fit on several devices: a process that does its share of every pass, and of nothing else."""

import logging
from multiprocessing.connection import Connection

import torch
from structlog.contextvars import bound_contextvars

from service.storage.dataset_store import DatasetStore, StorePlace
from service.worker.messages import Failed, Start
from service.worker.ranks import RankLost, Seat, joined
from service.worker.reporting import Inbox, Reporter, finished

logger = logging.getLogger(__name__)
# What all ranks come to together. Anything else may be one rank's alone, while the others wait for it.
_COMMON_FAILURES = ("INVALID_FIT", "FIT_COLLAPSED")
_PATIENCE_SECONDS = 30.0


def main(seat: Seat, start: Start, store_place: StorePlace, connection: Connection, n_threads: int) -> None:
    """Does a fit as one of several ranks, and then waits to be ended by whoever started it.

    Rank 0 tells of progress, checkpoints and the end, and hears when to stop; the others say only what they
    alone have come to: that a fit failed for want of their memory, their points, or by a mistake.

    Args:
        seat: Which rank, of how many, where they meet.
        start: The fit; the same for all ranks, its checkpoint too.
        store_place: Where the points are.
        connection: To whoever started it. When that closes, the process ends.
        n_threads: For torch; the same for all ranks, since with another number a step may round otherwise.

    Raises:
        RankLost: Another rank is gone, and nobody has ended this one for it.
        OutOfStep: Ranks do not have the same numbers.
    """
    with bound_contextvars(fit_id=start.claim.fit_id, worker_id=start.worker_id, rank=seat.rank):
        _take_part(seat, start, store_place, connection, n_threads)


def _take_part(
    seat: Seat, start: Start, store_place: StorePlace, connection: Connection, n_threads: int
) -> None:
    torch.set_num_threads(n_threads)
    inbox = Inbox(connection)
    try:
        with joined(seat) as group:
            reporter = Reporter(connection, inbox)
            end = finished(start, DatasetStore(*store_place), seat.device, reporter, group)
            failed_alone = isinstance(end.ended, Failed) and end.ended.code not in _COMMON_FAILURES
            if seat.rank == 0 or failed_alone:
                connection.send(end)
            inbox.wait_for_end()
    except RankLost as lost:
        logger.warning("%s", lost)
        inbox.wait_for_end(_PATIENCE_SECONDS)  # whoever has started it looks for the one that is gone
        raise
