"""The fit that a worker is doing: what it has heard of it, and what is due."""

from dataclasses import dataclass, field
from typing import Any

from service.storage import queue
from service.storage.database import Database
from service.storage.queue import Claim, Then
from service.worker.keeping import Keeping
from service.worker.messages import Asked, Ended, Failed, Succeeded


@dataclass
class Work:
    """The fit being done.

    Attributes:
        claim: What the queue says of it.
        keeping: Writes its checkpoints.
        heartbeat_due: When the next is, as `time.monotonic` counts, like all moments here.
        deadline: When its time is over.
        progress: The last it told, with the traces that have not been written yet.
        progress_written: Whether the database has it.
        progress_due: No sooner is the next one written.
        stop_outcome: What it was asked to end with.
        kill_at: When it has had time enough to end by itself.
    """

    claim: Claim
    keeping: Keeping
    heartbeat_due: float
    deadline: float
    progress: dict[str, Any] | None = None
    progress_written: bool = True
    progress_due: float = 0.0
    stop_outcome: Asked | None = None
    kill_at: float = field(default=float("inf"))

    def hear(self, progress: dict[str, Any]) -> None:
        """Takes a later progress in place of the one before, whose traces are kept until they are written."""
        unwritten = self.progress["traces"] if self.progress is not None else []
        self.progress, self.progress_written = progress | {"traces": unwritten + progress["traces"]}, False

    def told(self) -> None:
        """Notes that the progress has been written."""
        assert self.progress is not None, "there was something to write"  # noqa: S101
        self.progress, self.progress_written = self.progress | {"traces": []}, True

    def end(self, database: Database, ended: Ended, then: Then | None = None) -> bool:
        """Writes how it ended; returns whether that counted.

        A result that was ready before the wish to stop does.
        """
        claim, progress = self.claim, self.progress
        if isinstance(ended, Succeeded):
            return queue.succeed(database, claim, ended.result, ended.parameters, progress, then)
        if isinstance(ended, Failed):
            return queue.fail(database, claim, ended.code, ended.message, progress, then)
        if self.stop_outcome == "cancelled":
            return queue.cancelled(database, claim, progress)
        if self.stop_outcome == "timed_out":
            message = f"The fit did not end within its timeout_seconds of {claim.timeout_seconds:g}."
            return queue.fail(database, claim, "TIMED_OUT", message, progress)
        return queue.release(database, claim)
