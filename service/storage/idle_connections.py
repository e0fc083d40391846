"""Pooled connections that were left alone for a while: the server may have closed them meanwhile."""

import select
import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

_IDLE_SECONDS = 1.0
_SINCE = "idle since"


def ask_idle_ones(engine: Engine) -> None:
    """Has psycopg's connections asked whether they are still there before they are used again, or replaced.

    Asked are those that were idle for a while, and those that the server has sent something since, if only
    its goodbye. The pool's own `pool_pre_ping` asks at every use, which is a round trip in ten where small
    transactions follow one another.
    """
    dialect = engine.dialect

    @event.listens_for(engine, "checkin")
    def _returned(driver: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _taken(driver: Any, record: Any, proxy: Any) -> None:
        since = record.info.get(_SINCE)
        try:
            if since is None or not (time.monotonic() - since >= _IDLE_SECONDS or _is_spoken_to(driver)):
                return
            dialect.do_ping(driver)
        except dialect.loaded_dbapi.Error as error:
            # All that are as old as this one: they went with the server, most likely.
            raise InvalidatePoolError from error


def _is_spoken_to(driver: Any) -> bool:
    poll = select.poll()
    poll.register(driver.fileno(), select.POLLIN)
    return bool(poll.poll(0))
