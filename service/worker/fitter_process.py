"""The supervisor's end of a fitter: start it, talk to it, end it."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from service.garbage import look_seldom
from service.logs import start_logging
from service.settings import Settings
from service.storage.dataset_store import StorePlace
from service.storage.workers import Device
from service.worker.messages import (
    Asked,
    Checkpointed,
    Finished,
    Lost,
    Progressed,
    Ready,
    Refused,
    Start,
    Stop,
)
from service.worker.ray_cluster import RayCluster

# Forking a process that has threads and CUDA is not safe.
_SPAWN = multiprocessing.get_context("spawn")
_LOOK_SECONDS = 0.2


def _enter(
    connection: Connection,
    device: str,
    n_devices: int | None,
    store_place: StorePlace,
    settings: Settings | None,
    cluster: RayCluster | None,
) -> None:
    look_seldom()
    if settings is not None:
        start_logging(settings.log_level, settings.log_format)
    # Here, not above: the supervisor has no use for torch, which takes seconds to load and 200 MB to keep.
    if cluster is None:
        from service.worker import fitter

        fitter.main(connection, device, n_devices, store_place, settings)
    else:
        from service.worker import ray_fitter

        ray_fitter.main(connection, cluster, device, n_devices, store_place, settings)


class FitterDied(Exception):
    """The fitter's process ended without a last word, or one of those that it had started for a fit."""


class DeviceMissing(Exception):
    """The fitter cannot have the device asked for."""


class FitterProcess:
    """A running fitter.

    Args:
        device: What to compute on, as in a request.
        store_place: Where the points are.
        n_devices: How many devices a fit may have; all that there are unless given.
        settings: How it is to log; only Python's last resort unless given.
        cluster: Where fits are done, if not in this process.
        given_up: Asked again and again while it starts, which takes seconds; True ends that.

    Raises:
        DeviceMissing: The device asked for is not there.
        FitterDied: It ended before it was ready, or was given up.
    """

    def __init__(
        self,
        device: str,
        store_place: StorePlace,
        *,
        n_devices: int | None = None,
        settings: Settings | None = None,
        cluster: RayCluster | None = None,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(
            target=_enter,
            args=(theirs, device, n_devices, store_place, settings, cluster),
            name="mixserve-fitter",
        )
        self._process.start()
        theirs.close()
        try:
            self.device = self._device(given_up)
        except BaseException:
            self.kill()
            raise

    def _device(self, given_up: Callable[[], bool]) -> Device:
        while not wait([self._connection, self._process.sentinel], _LOOK_SECONDS):
            if given_up():
                raise FitterDied("given up before it was ready")
        first = self._receive()
        if isinstance(first, Refused):
            raise DeviceMissing(first.reason)
        assert isinstance(first, Ready), "a fitter speaks of its device first"  # noqa: S101
        return first.device

    @property
    def process_id(self) -> int:
        """Its process."""
        assert self._process.pid is not None, "it was started"  # noqa: S101
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it can be handed a fit."""
        return self._process.is_alive()

    def start(self, message: Start) -> None:
        """Hands it a fit.

        Raises:
            FitterDied: It is no more.
        """
        self._send(message)

    def stop(self, outcome: Asked) -> None:
        """Asks it to end its fit at the next step, with this outcome.

        Raises:
            FitterDied: It is no more.
        """
        self._send(Stop(outcome))

    def listen(self, timeout_seconds: float) -> Progressed | Checkpointed | Finished | None:
        """Returns its next word, or None when it says nothing in time.

        Raises:
            FitterDied: It is no more, or has lost a process that it needs for its fit.
        """
        if not wait([self._connection, self._process.sentinel], timeout_seconds):
            return None
        message = self._receive()
        if isinstance(message, Lost):
            raise FitterDied(message.reason)
        assert not isinstance(message, Ready | Refused), "a fitter says these once"  # noqa: S101
        return message

    def kill(self) -> None:
        """Ends it at once, whatever it is doing; again, it does nothing."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _send(self, message: Start | Stop) -> None:
        try:
            self._connection.send(message)
        except OSError as error:
            raise FitterDied from error

    def _receive(self) -> "Ready | Refused | Progressed | Checkpointed | Finished | Lost":
        try:
            return self._connection.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError) as error:
            self._process.join(5)
            raise FitterDied(f"exit code {self._process.exitcode}") from error
