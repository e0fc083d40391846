"""Tracing that is on: spans by OpenTelemetry, sent as OTLP over HTTP."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from service.tracing import Span, Tracing

_SERVER_ERROR = 500
_CONTEXT = TraceContextTextMapPropagator()


class _Traced(Span):
    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @override
    def answered(self, scope: Mapping[str, Any], status: int) -> None:
        route = getattr(scope.get("route"), "path", None)
        if route is not None:
            self._span.update_name(f"{scope['method']} {route}")
            self._span.set_attribute("http.route", str(route))
        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR or status == 0:
            self._span.set_status(Status(StatusCode.ERROR))

    @override
    def said(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"mixserve.{name}", value)


class Telemetry(Tracing):
    """Spans of one process, sent in the background.

    Args:
        endpoint: Where the collector is, without a path.
        service: What the process is.
        version: Of the service.
    """

    def __init__(self, endpoint: str, service: str, version: str) -> None:
        resource = Resource.create({"service.name": service, "service.version": version})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("mixserve", version)

    @override
    @contextmanager
    def request(self, scope: Mapping[str, Any]) -> Iterator[Span]:
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        attributes = {
            "http.request.method": scope["method"],
            "mixserve.request_id": scope["state"]["request_id"],
        }
        with self._tracer.start_as_current_span(
            scope["method"],
            context=_CONTEXT.extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
        ) as span:
            yield _Traced(span)

    @override
    @contextmanager
    def fit(self, traceparent: str | None, **attributes: Any) -> Iterator[Span]:
        context = _CONTEXT.extract({"traceparent": traceparent} if traceparent else {})
        with self._tracer.start_as_current_span("fit", context=context, kind=SpanKind.CONSUMER) as span:
            traced = _Traced(span)
            traced.said(**attributes)
            yield traced

    @override
    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        _CONTEXT.inject(carrier)
        return carrier.get("traceparent")

    @override
    def close(self) -> None:
        self._provider.shutdown()
