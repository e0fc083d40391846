"""The worker: claims fits for a device slot, watches over the process that does them, writes what comes out.

It imports no torch and burns no time, so that its heartbeats go out however busy the fit keeps the machine.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from service.errors import ServiceError, Unavailable
from service.settings import Settings
from service.storage import changes, queue, workers
from service.storage.database import Database
from service.storage.queue import Claim, Standing
from service.worker.fitter_process import FitterDied, FitterProcess
from service.worker.messages import Checkpointed, Ended, Failed, Progressed, Start, Stopped, Succeeded

logger = logging.getLogger(__name__)
Value = TypeVar("Value")

_TICK_SECONDS = 0.1
_IDLE_SECONDS = 1.0
_PROGRESS_SECONDS = 0.5
_GRACE_SECONDS = 1.0
_RETRY_SECONDS = 0.5
_HEARTBEATS_PER_LEASE = 5


@dataclass
class _Work:
    """The fit being done."""

    claim: Claim
    heartbeat_due: float
    deadline: float
    progress: dict[str, Any] | None = None
    progress_due: float = 0.0
    stop_outcome: str | None = None
    kill_at: float = field(default=float("inf"))


class Supervisor:
    """Runs until told to stop. One supervisor serves one device slot."""

    def __init__(self, settings: Settings, database: Database, device: str) -> None:
        self._settings = settings
        self._database = database
        self._wanted_device = device
        self._stopping = threading.Event()
        self._heartbeat_seconds = settings.lease_seconds / _HEARTBEATS_PER_LEASE

    def stop(self) -> None:
        """Asks it to give its fit back and end; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serves the queue until `stop`.

        Raises:
            DeviceMissing: The device asked for is not there.
        """
        self._fitter = self._new_fitter()
        self._changes = changes.listen(self._database)
        self._alive_due = 0.0
        try:
            self._worker_id = self._insist(lambda: workers.register(self._database, self._fitter.device))
            while not self._stopping.is_set():
                claim = self._insist(self._claim)
                if claim is not None:
                    self._do(claim)
                else:
                    self._changes.wait(min(_IDLE_SECONDS, self._heartbeat_seconds))
                self._insist(self._say_alive)
            workers.unregister(self._database, self._worker_id)
        except Unavailable as error:
            # What it held is taken over when the lease runs out.
            logger.error("ended without its database: %s", error)
        finally:
            self._fitter.kill()
            self._changes.close()

    def _new_fitter(self) -> FitterProcess:
        return FitterProcess(self._wanted_device, self._settings.dataset_store_folder)

    def _say_alive(self) -> None:
        """Writes the worker's own heartbeat when one is due."""
        if time.monotonic() < self._alive_due:
            return
        if not workers.heartbeat(self._database, self._worker_id):
            self._worker_id = workers.register(self._database, self._fitter.device)
        self._alive_due = time.monotonic() + self._heartbeat_seconds

    def _claim(self) -> Claim | None:
        return queue.claim(
            self._database,
            self._worker_id,
            self._fitter.device.serves,
            lease_seconds=self._settings.lease_seconds,
            max_attempts=self._settings.max_attempts,
        )

    def _do(self, claim: Claim) -> None:
        now = time.monotonic()
        logger.info("fit %s begins, attempt %d", claim.fit_id, claim.attempt)
        timeout = claim.timeout_seconds if claim.timeout_seconds is not None else float("inf")
        work = _Work(claim, heartbeat_due=now + self._heartbeat_seconds, deadline=now + timeout)
        try:
            self._fitter.start(Start(claim, self._settings.checkpoint_seconds))
            ended = self._watch_over(work)
        except FitterDied as death:
            logger.error("fit %s lost its process: %s", claim.fit_id, death)
            self._insist(lambda: queue.lose(self._database, claim, self._settings.max_attempts))
            self._replace_fitter()
            return
        if ended is not None:
            self._insist(lambda: self._settle(work, ended))

    def _watch_over(self, work: _Work) -> Ended | None:
        """Returns how the fit ended, or None when it is no longer this worker's."""
        while True:
            message = self._fitter.listen(_TICK_SECONDS)
            if isinstance(message, Progressed):
                work.progress = message.progress
            elif isinstance(message, Checkpointed):
                self._keep(work.claim, message.state)
            elif message is not None:
                return message
            standing = self._standing(work)
            if standing.lost:
                logger.warning(
                    "fit %s has been taken over; what was computed is discarded", work.claim.fit_id
                )
                self._replace_fitter()
                return None
            self._enforce(work, standing)
            if time.monotonic() >= work.kill_at:
                self._replace_fitter()
                return Stopped()

    def _standing(self, work: _Work) -> Standing:
        """Writes a heartbeat when one is due, else looks whether something changed."""
        now = time.monotonic()
        fresh = work.progress if now >= work.progress_due else None
        try:
            if fresh is not None or now >= work.heartbeat_due:
                standing = queue.heartbeat(self._database, work.claim, self._settings.lease_seconds, fresh)
                work.heartbeat_due = now + self._heartbeat_seconds
                if fresh is not None:
                    work.progress, work.progress_due = None, now + _PROGRESS_SECONDS
                self._say_alive()
                return standing
            if self._changes.wait(0):
                return queue.standing(self._database, work.claim)
        except Unavailable as error:
            logger.warning("the fit %s goes on without its database: %s", work.claim.fit_id, error)
        return Standing(lost=False)

    def _keep(self, claim: Claim, state: bytes) -> None:
        try:
            queue.checkpoint(self._database, claim, state)
        except ServiceError as error:
            logger.warning("a checkpoint of fit %s could not be kept: %s", claim.fit_id, error)

    def _enforce(self, work: _Work, standing: Standing) -> None:
        """Asks the fitter to stop, once, and sets when to stop asking."""
        if work.stop_outcome is not None:
            return
        if standing.cancel_requested:
            work.stop_outcome = "cancelled"
        elif time.monotonic() >= work.deadline:
            work.stop_outcome = "timed_out"
        elif self._stopping.is_set():
            work.stop_outcome = "released"
        if work.stop_outcome is not None:
            self._fitter.stop()
            work.kill_at = time.monotonic() + _GRACE_SECONDS

    def _settle(self, work: _Work, ended: Ended) -> None:
        """Writes how the fit ended; a result that was ready before the wish to stop counts."""
        claim = work.claim
        if isinstance(ended, Succeeded):
            mine = queue.succeed(self._database, claim, ended.result, ended.parameters, work.progress)
        elif isinstance(ended, Failed):
            mine = queue.fail(self._database, claim, ended.code, ended.message, work.progress)
        elif work.stop_outcome == "cancelled":
            mine = queue.cancelled(self._database, claim, work.progress)
        elif work.stop_outcome == "timed_out":
            message = f"The fit did not end within its timeout_seconds of {claim.timeout_seconds:g}."
            mine = queue.fail(self._database, claim, "TIMED_OUT", message, work.progress)
        else:
            mine = queue.release(self._database, claim)
        logger.info("fit %s: %s%s", claim.fit_id, type(ended).__name__.lower(), "" if mine else ", too late")

    def _replace_fitter(self) -> None:
        self._fitter.kill()
        if not self._stopping.is_set():
            self._fitter = self._new_fitter()

    def _insist(self, act: Callable[[], Value]) -> Value:
        """Returns what a database call returns, trying again while the database does not answer."""
        while True:
            try:
                return act()
            except Unavailable as error:
                if self._stopping.is_set():
                    raise
                logger.warning("%s", error)
                self._stopping.wait(_RETRY_SECONDS)
