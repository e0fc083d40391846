"""The worker: claims fits for a device slot, watches over the process that does them, writes what comes out.

It imports no torch and burns no time, so that its heartbeats go out however busy the fit keeps the machine.
"""

import logging
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from structlog.contextvars import bound_contextvars

from service.errors import ServiceError
from service.settings import Settings
from service.storage import changes, checkpoints, claims, queue, workers
from service.storage.claims import Claimant
from service.storage.database import Database, Session
from service.storage.queue import Claim, Standing
from service.tracing import Tracing
from service.worker.figures import Figures
from service.worker.fitter_process import FitterDied, FitterProcess
from service.worker.keeping import Keeping
from service.worker.messages import Checkpointed, Ended, Failed, Finished, Start, Stopped
from service.worker.ray_cluster import RayCluster, is_reachable
from service.worker.work import Work

logger = logging.getLogger(__name__)
Value = TypeVar("Value")

_TICK_SECONDS = 0.1
_IDLE_SECONDS = 1.0
_PROGRESS_SECONDS = 0.5
_GRACE_SECONDS = 1.0
# A fit that is to go on elsewhere has a checkpoint to write; all is to end within 10 s.
_RELEASE_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_HEARTBEATS_PER_LEASE = 5


class Supervisor:
    """Runs until told to stop. One supervisor serves one device slot."""

    def __init__(
        self, settings: Settings, database: Database, device: str, tracing: Tracing | None = None
    ) -> None:
        self._settings = settings
        self._database = database
        self._wanted_device = device
        self._stopping = threading.Event()
        self._heartbeat_seconds = settings.lease_seconds / _HEARTBEATS_PER_LEASE
        self._heartbeat_due = 0.0
        self._figures = Figures()
        address = settings.ray_address
        self._cluster = RayCluster(address, settings.ray_cpus_per_rank) if address else None
        self._tracing = tracing or Tracing()

    def stop(self) -> None:
        """Asks it to give its fit back and end; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serves the queue until `stop`.

        Raises:
            DeviceMissing: The device asked for is not there.
            FitterDied: A process that could do fits does not start.
        """
        try:
            self._fitter = self._new_fitter()
            try:
                self._serve()
            finally:
                self._fitter.kill()
        except FitterDied:
            if not self._stopping.is_set():
                raise
        except ServiceError as error:
            if not self._stopping.is_set():
                raise
            logger.warning("the worker ends without its database: %s", error)

    def _serve(self) -> None:
        self._changes = changes.listen(self._database)
        try:
            self._worker_id = self._insist(self._register)
            claim: Claim | None = None
            while claim is not None or not self._stopping.is_set():  # what it holds it has to give back
                claim = self._next(claim)
                self._insist(self._say_alive)
            workers.unregister(self._database, self._worker_id)
        finally:
            self._changes.close()

    def _next(self, claim: Claim | None) -> Claim | None:
        """Does a fit if there is one; returns the next claim, if one was made with its end."""
        if claim is None:
            if not self._fitter.is_alive():
                self._fitter = self._new_fitter()
            claim = self._insist(lambda: claims.claim(self._database, self._claimant()))
        if claim is not None:
            return self._do_traced(claim)
        self._changes.wait(min(_IDLE_SECONDS, self._heartbeat_seconds))
        return None

    def _new_fitter(self) -> FitterProcess:
        settings = self._settings
        return FitterProcess(
            self._wanted_device,
            settings.store_place,
            n_devices=settings.worker_devices,
            settings=settings,
            cluster=self._cluster,
            given_up=self._stopping.is_set,
        )

    def _register(self) -> str:
        return workers.register(self._database, self._fitter.device)

    def _say_alive(self) -> None:
        """Tells that this worker is there, when that is due."""
        now = time.monotonic()
        if now >= self._heartbeat_due:
            if not workers.heartbeat(self._database, self._worker_id, self._figures.summary()):
                self._worker_id = self._register()
            self._heartbeat_due = now + self._heartbeat_seconds

    def _claimant(self) -> Claimant:
        device, settings = self._fitter.device, self._settings
        return Claimant(
            self._worker_id,
            device.serves,
            lease_seconds=settings.lease_seconds,
            max_attempts=settings.max_attempts,
            max_running_fits=settings.owner_max_running_fits,
            n_devices=device.n_devices,
        )

    def _do_traced(self, claim: Claim) -> Claim | None:
        """Returns the next claim, if one was made with the end of this one."""
        about = {"fit_id": claim.fit_id, "worker_id": self._worker_id}
        with (
            bound_contextvars(**about),
            self._tracing.fit(claim.traceparent, **about, attempt=claim.attempt) as span,
        ):
            self._figures.begin(claim)
            ended, following = self._do(claim)
            span.said(outcome="lost" if ended is None else type(ended).__name__.lower())
            if ended is not None:
                self._figures.end(claim, ended, self._fitter.process_id)
            return following

    def _do(self, claim: Claim) -> tuple[Ended | None, Claim | None]:
        """Returns how the fit ended, or None when it was lost, and the next claim if one was made."""
        now = time.monotonic()
        logger.info("fit %s begins, attempt %d", claim.fit_id, claim.attempt)
        timeout = claim.timeout_seconds if claim.timeout_seconds is not None else float("inf")
        work = Work(
            claim,
            Keeping(self._database, claim),
            heartbeat_due=now + self._heartbeat_seconds,
            deadline=now + timeout,
        )
        try:
            seconds, checkpoint = self._settings.checkpoint_seconds, self._checkpoint(claim)
            self._fitter.start(Start(claim, seconds, checkpoint, self._worker_id))
            ended = self._watch_over(work)
        except FitterDied as death:
            logger.error("fit %s lost its process: %s", claim.fit_id, death)
            ended = self._end_of_orphan(work)
        return ended, None if ended is None else self._settle(work, ended)

    def _checkpoint(self, claim: Claim) -> bytes | None:
        if claim.n_checkpoints == 0:
            return None
        return self._insist(lambda: checkpoints.read(self._database, claim.fit_id))

    def _watch_over(self, work: Work) -> Ended | None:
        """Returns how the fit ended, or None when it is no longer this worker's."""
        while True:
            message = self._fitter.listen(_TICK_SECONDS)
            if isinstance(message, Checkpointed):
                work.keeping.take(message)
            elif message is not None and message.progress is not None:
                work.hear(message.progress)
            if isinstance(message, Finished):
                return message.ended
            standing = self._standing(work)
            if standing.lost:
                logger.warning(
                    "fit %s has been taken over; what was computed is discarded", work.claim.fit_id
                )
                self._fitter.kill()
                self._figures.lose("lost_leases")
                return None
            self._enforce(work, standing)
            if time.monotonic() >= work.kill_at:
                # Its successor is started when all is written: that takes seconds.
                self._fitter.kill()
                return Stopped()

    def _standing(self, work: Work) -> Standing:
        """Writes a heartbeat when one is due, else looks whether something changed."""
        now = time.monotonic()
        fresh = work.progress if not work.progress_written and now >= work.progress_due else None
        try:
            if fresh is not None or now >= work.heartbeat_due:
                standing = queue.heartbeat(self._database, work.claim, self._settings.lease_seconds, fresh)
                work.heartbeat_due = now + self._heartbeat_seconds
                if fresh is not None:
                    work.told()
                    work.progress_due = now + _PROGRESS_SECONDS
                self._say_alive()
                return standing
            if self._changes.wait(0):
                return queue.standing(self._database, work.claim)
        except ServiceError as error:
            logger.warning("the fit %s goes on without its database: %s", work.claim.fit_id, error)
            # What was not heard now is asked for soon.
            work.heartbeat_due = work.progress_due = now + _RETRY_SECONDS
        return Standing(lost=False)

    def _enforce(self, work: Work, standing: Standing) -> None:
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
            self._fitter.stop(work.stop_outcome)
            patience = _RELEASE_SECONDS if work.stop_outcome == "released" else _GRACE_SECONDS
            work.kill_at = time.monotonic() + patience

    def _end_of_orphan(self, work: Work) -> Ended | None:
        """Returns how a fit ends whose process has died, or None when it goes back as a loss."""
        if work.stop_outcome is not None or self._stopping.is_set():
            return Stopped()  # a signal to the whole group reaches both
        if self._cluster is not None and not is_reachable(self._cluster.address):
            logger.warning("the Ray cluster is out of reach; fit %s goes back for others", work.claim.fit_id)
            self._insist(lambda: queue.release(self._database, work.claim))
            return None
        self._figures.lose("lost_processes")
        self._insist(lambda: queue.lose(self._database, work.claim, self._settings.max_attempts))
        return None

    def _settle(self, work: Work, ended: Ended) -> Claim | None:
        """Writes how the fit ended; returns the next claim, if one was made with it."""
        fit_id, claim = work.claim.fit_id, None
        try:
            mine, claim = self._insist(lambda: self._write_and_claim(work, ended))
        except ServiceError:
            raise
        except Exception:
            logger.exception("the result of fit %s cannot be written in one with a claim", fit_id)
            mine = self._settle_alone(work, ended)
        logger.info("fit %s: %s%s", fit_id, type(ended).__name__.lower(), "" if mine else ", too late")
        return claim

    def _settle_alone(self, work: Work, ended: Ended) -> bool:
        """Writes how the fit ended; one whose result cannot be written must not be done again and again."""
        try:
            return self._insist(lambda: work.end(self._database, ended))
        except ServiceError:
            raise
        except Exception as error:
            logger.exception("the result of fit %s cannot be written", work.claim.fit_id)
            message = f"The result could not be kept ({type(error).__name__}); the log has the details."
            failed = Failed("INTERNAL", message)
            return self._insist(lambda: work.end(self._database, failed))

    def _write_and_claim(self, work: Work, ended: Ended) -> tuple[bool, Claim | None]:
        """Claims the next fit in the transaction that ends this one: one wait for the disk instead of two.

        What it claims it could begin at once; whether it could is asked when the transaction comes to it.
        """
        claimed: list[Claim | None] = [None]

        def claim_next(session: Session) -> None:
            if self._fitter.is_alive() and not self._stopping.is_set():
                claimed[0] = claims.claim_after(self._database, session, self._claimant())

        mine = work.end(self._database, ended, claim_next)
        return mine, claimed[0]

    def _insist(self, act: Callable[[], Value]) -> Value:
        """Returns what a database call returns, trying again while it does not answer or is full."""
        while True:
            try:
                return act()
            except ServiceError as error:
                if self._stopping.is_set() or error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                logger.warning("%s", error)
                time.sleep(_RETRY_SECONDS)  # not on the event, whose lock a signal handler may want
