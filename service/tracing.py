"""Traces (OpenTelemetry): one from the request that makes a fit to the worker that does it.

Nothing is loaded or done unless MIXSERVE_OTLP_ENDPOINT says where to send them, which needs the extra `otel`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.metadata import version
from typing import Any

from service.settings import Settings


class Span:
    """Something that is under way and not traced."""

    def answered(self, scope: Mapping[str, Any], status: int) -> None:
        """Says which route a request took and how it was answered."""

    def said(self, **attributes: Any) -> None:
        """Adds attributes."""


_UNTRACED = nullcontext(Span())


class Tracing:
    """Tracing that is off: it costs a call."""

    def request(self, scope: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """Returns, for a with statement, the span of a request, within the trace of its `traceparent`."""
        del scope
        return _UNTRACED

    @contextmanager
    def fit(self, traceparent: str | None, **attributes: Any) -> Iterator[Span]:
        """Yields the span of a worker's work on a fit, within the trace of the request that made it."""
        del traceparent, attributes
        yield Span()

    def traceparent(self) -> str | None:
        """Returns the current span as W3C Trace Context writes it; None when there is none."""
        return None

    def close(self) -> None:
        """Sends what has not been sent."""


def start_tracing(settings: Settings, service: str) -> Tracing:
    """Returns tracing as the settings want it.

    Args:
        settings: The endpoint, such as http://collector:4318.
        service: What the process is, `mixserve-api` or `mixserve-worker`.

    Raises:
        ValueError: The packages of the extra `otel` are not there.
    """
    if not settings.otlp_endpoint:
        return Tracing()
    try:
        from service.telemetry import Telemetry
    except ImportError as error:
        raise ValueError(
            "MIXSERVE_OTLP_ENDPOINT needs the packages of an extra: pip install 'mixserve[otel]'"
        ) from error
    return Telemetry(settings.otlp_endpoint, service, version("mixserve"))
