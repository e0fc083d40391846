"""Pooled connections that were left alone for a while: the server may have closed them meanwhile."""

import time
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

_IDLE_SECONDS = 1.0
_SINCE = "idle since"


def ask_idle_ones(engine: Engine) -> None:
    """Has a connection that was idle asked whether it is still there before it is used again, or replaced.

    The pool's own `pool_pre_ping` asks at every use. For small transactions one after the other that is a
    round trip in ten; what they could lose by it is one answer more to a restart that loses them some anyway.
    """
    dialect = engine.dialect

    @event.listens_for(engine, "checkin")
    def _returned(driver: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _taken(driver: Any, record: Any, proxy: Any) -> None:
        since = record.info.get(_SINCE)
        if since is None or time.monotonic() - since < _IDLE_SECONDS:
            return
        try:
            dialect.do_ping(driver)
        except dialect.loaded_dbapi.Error as error:
            # All that are as old as this one: they went with the server, most likely.
            raise InvalidatePoolError from error
