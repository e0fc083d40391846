"""Logs: a line of JSON for each event, or lines for people where a terminal reads them."""

import asyncio
import logging
import re
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TextIO

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, WrappedLogger
from typing_extensions import override

# A key's form; what looks like one is in no log, whatever field it came in.
_SECRET = re.compile(r"mixs_[0-9A-Za-z]{8,}")
_QUIET = ("alembic", "uvicorn.access")
_REDACTED = "mixs_..."
# uvicorn's second copy of the text, for terminals, and the time by Ray, once that is loaded.
_MARKS = ("color_message", "_ray_timestamp_ns")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being served: on every line that is logged meanwhile.

A variable of its own, since structlog's take longer to set than a small question to be answered.
"""


# What all records of requests have in common.
_ALIKE = vars(logging.LogRecord("", logging.INFO, __name__, 0, "request", None, None))


class RequestRecord(logging.LogRecord):
    """What the log says of a request: there is one for every request, so it is made and written cheaply.

    Nobody looks up the line of code, the thread and the task that it comes from; they are always the same. It
    goes wherever records go; where that is as JSON, `line` has it.

    Args:
        logger: Whose record it is.
        fields: What is told of the request.
    """

    __slots__ = ("_fields",)

    def __init__(self, logger: logging.Logger, fields: Mapping[str, Any]) -> None:
        # A LogRecord's own beginning is left out: it takes longer than all the rest.
        self.__dict__.update(_ALIKE)
        self.__dict__.update(fields, name=logger.name, created=time.time())
        self._fields = fields

    def line(self) -> str:
        """Returns the record as JSON."""
        second = int(self.created)
        microseconds = int((self.created - second) * 1e6)
        said = {"event": "request", "level": "info", "logger": self.name, **self._fields}
        said["timestamp"] = f"{_second(second)}.{microseconds:06d}Z"
        line = _as_json(said)
        return redacted(line)


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


class _JsonHandler(logging.StreamHandler[TextIO]):
    """Writes lines of JSON; what one turn of the event loop tells of its requests, all at once."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._requests: list[RequestRecord] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record, RequestRecord):
            super().emit(record)
            return
        if not self._requests:
            asyncio.get_running_loop().call_soon(self.flush)
        self._requests.append(record)

    @override
    def flush(self) -> None:
        with self.lock or nullcontext():
            requests, self._requests = self._requests, []
            if requests:
                try:
                    self.stream.write("".join(f"{record.line()}\n" for record in requests))
                except Exception:  # noqa: BLE001  as every handler does
                    self.handleError(requests[0])
        super().flush()


def start_logging(log_level: str, log_format: str) -> None:
    """Has what any module logs written to standard error, with the ids that are bound where it happens.

    Args:
        log_level: The least to write, as in the settings.
        log_format: json, console, or auto, which asks whether a terminal reads it.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    # A traceback is only written by the renderer, and may have anything in it.
    render: list[Any] = [structlog.dev.ConsoleRenderer(sort_keys=False), _redact_text]
    if as_json:
        handler = _JsonHandler(sys.stderr)
        render = [structlog.processors.format_exc_info, _redact, structlog.processors.JSONRenderer(_as_json)]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                _with_request_id,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                _without_marks,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact, *render],
        )
    )
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def redacted(text: str) -> str:
    """Returns a text without the keys in it."""
    return _SECRET.sub(_REDACTED, text)


def _without_marks(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leaves out what others put into every record for their own use."""
    del logger, method
    for mark in _MARKS:
        event.pop(mark, None)
    return event


def _with_request_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    request_id = REQUEST_ID.get()
    if request_id is not None:
        event["request_id"] = request_id
    return event


def _redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    return {name: redacted(value) if isinstance(value, str) else value for name, value in event.items()}


def _redact_text(logger: WrappedLogger, method: str, text: Any) -> str:
    del logger, method
    return redacted(str(text))


def _as_json(event: EventDict, **_: Any) -> str:
    return to_json(event, inf_nan_mode="strings", fallback=repr).decode()
