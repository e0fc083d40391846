"""What waits for fits, without a server."""

import asyncio
import threading

import pytest
from sqlalchemy.orm import Session

from service.api import fit_watcher
from service.api.fit_watcher import FitWatcher
from service.storage import fits
from service.storage.database import Database
from service.storage.fits import FitState


def test_a_read_that_ends_behind_the_loop_tells_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    unhandled: list[threading.ExceptHookArgs] = []

    def states(session: Session, fit_ids: list[str]) -> dict[str, FitState]:
        reading.set()
        assert go_on.wait(30)
        return {}

    async def scenario() -> None:
        watcher = FitWatcher(database)
        watcher.start()
        with watcher.watching("fit_any"):
            assert await asyncio.to_thread(reading.wait, 30)
            watcher.close()

    monkeypatch.setattr(fits, "states", states)
    monkeypatch.setattr(fit_watcher, "_REFRESH_SECONDS", 0)
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    asyncio.run(scenario())
    looking = [thread for thread in threading.enumerate() if thread.name == "fit-watcher"]
    go_on.set()
    for thread in looking:
        thread.join(30)
    assert looking
    assert not unhandled
