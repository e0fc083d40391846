"""Logs: a line of JSON for each event, or lines for people where a terminal reads them."""

import logging
import re
import sys
from typing import Any

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, WrappedLogger

from service.settings import Settings

# A key's form; what looks like one is in no log, whatever field it came in.
_SECRET = re.compile(r"mixs_[0-9A-Za-z]{8,}")
_QUIET = ("alembic", "uvicorn.access")
_REDACTED = "mixs_..."


def start_logging(settings: Settings) -> None:
    """Has what any module logs written to standard error, with the ids that are bound where it happens."""
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    render: list[Any] = [structlog.dev.ConsoleRenderer(sort_keys=False)]
    if as_json:
        render = [structlog.processors.format_exc_info, _redact, structlog.processors.JSONRenderer(_as_json)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
                _without_colour,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _redact, *render],
        )
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def redacted(text: str) -> str:
    """Returns a text without the keys in it."""
    return _SECRET.sub(_REDACTED, text)


def _without_colour(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Leaves out the second copy of its text, for terminals, that uvicorn sends along."""
    del logger, method
    event.pop("color_message", None)
    return event


def _redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    del logger, method
    return {name: redacted(value) if isinstance(value, str) else value for name, value in event.items()}


def _as_json(event: EventDict, **_: Any) -> str:
    return to_json(event, inf_nan_mode="strings", fallback=repr).decode()
