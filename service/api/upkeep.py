"""What an API process does on the side: it keeps the keys of calls being served, and removes what is old."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import ServiceError
from service.settings import Settings
from service.storage import idempotency, upkeep
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore

logger = logging.getLogger(__name__)
_REMOVAL_SECONDS = 3600.0
_ORPHANED_AFTER_SECONDS = 3600.0
_DAY_SECONDS = 86_400.0


class Upkeep:
    """One thread; every API process has one, and they do not get into each other's way."""

    def __init__(self, settings: Settings, database: Database, store: DatasetStore) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._serving: dict[str, tuple[str, float]] = {}
        self._closed = threading.Event()

    def start(self) -> None:
        """Starts the thread, which removes what is old at once and then every hour."""
        threading.Thread(target=self._run, name="upkeep", daemon=True).start()

    def close(self) -> None:
        """Ends the thread, after what it is doing."""
        self._closed.set()

    @contextmanager
    def serving(self, key: str, holder: str) -> Iterator[None]:
        """Keeps a key with its holder for as long as the block lasts, or briefly if the process is killed."""
        self._serving[holder] = (key, time.monotonic())
        try:
            yield
        finally:
            del self._serving[holder]

    def _run(self) -> None:
        removal_due = 0.0
        while True:
            if time.monotonic() >= removal_due:
                removal_due = time.monotonic() + _REMOVAL_SECONDS
                for act in (self._remove_fits, self._remove_keys, self._sweep):
                    self._try(act)
            if self._closed.wait(idempotency.RENEWAL_SECONDS):
                return
            self._try(self._renew)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except ServiceError as error:
            logger.warning("upkeep is put off: %s", error)
        except Exception:
            logger.exception("upkeep has failed; it is tried again later")

    def _renew(self) -> None:
        long_ago = time.monotonic() - idempotency.RENEWAL_SECONDS
        # A copy, since calls come and go meanwhile; most are over before they need it.
        held = {key: holder for holder, (key, begun) in dict(self._serving).items() if begun < long_ago}
        if held:
            idempotency.renew(self._database, held)

    def _remove_fits(self) -> None:
        if self._settings.retention_days is not None:
            age_seconds = self._settings.retention_days * _DAY_SECONDS
            n_removed = upkeep.remove_ended_fits(self._database, self._store, age_seconds)
            logger.info("%d fits were removed for their age", n_removed)

    def _remove_keys(self) -> None:
        upkeep.remove_old_keys(self._database, self._settings.idempotency_seconds)

    def _sweep(self) -> None:
        n_removed = upkeep.sweep(self._database, self._store, _ORPHANED_AFTER_SECONDS)
        if n_removed:
            logger.info("%d files that nothing refers to were removed", n_removed)
