"""Figures of the requests that one process answers: how many, how long they took, how large they were.

Counting with the classes of prometheus_client, which lock and try the buckets one by one, takes about as long
as the answer to a small question. Only the event loop counts here; `/metrics` reads what it has counted.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_BYTES = tuple(float(4**power) for power in range(3, 16))

_DISTRIBUTIONS = (
    ("request_duration_seconds", "From a request's first byte to its answer's last", "seconds"),
    ("request_size_bytes", "Bodies as sent", "request_bytes"),
    ("response_size_bytes", "Bodies", "response_bytes"),
)


class _Distribution:
    """How often values came that are at most so large, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Returns, for each bound, how many values are not above it; and the sum of all."""
        total, counts = self._sum, accumulate(list(self._counts))
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, counts), strict=True)), total


class _Route:
    """The requests of one method and route."""

    __slots__ = ("n_by_status", "request_bytes", "response_bytes", "seconds")

    def __init__(self) -> None:
        self.n_by_status: dict[int, int] = {}
        self.seconds = _Distribution(_SECONDS)
        self.request_bytes = _Distribution(_BYTES)
        self.response_bytes = _Distribution(_BYTES)


class RequestFigures(Collector):
    """The figures of one process, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._routes: dict[tuple[str, str], _Route] = {}
        registry.register(self)

    def answered(
        self, method: str, route: str, status: int, seconds: float, n_bytes_in: int, n_bytes_out: int
    ) -> None:
        """Counts an answer; to be called by the event loop only."""
        of_route = self._routes.get((method, route))
        if of_route is None:
            of_route = self._routes[method, route] = _Route()
        of_route.n_by_status[status] = of_route.n_by_status.get(status, 0) + 1
        of_route.seconds.add(seconds)
        of_route.request_bytes.add(n_bytes_in)
        of_route.response_bytes.add(n_bytes_out)

    def collect(self) -> Iterator[Metric]:
        """Yields what Prometheus reads."""
        routes = list(self._routes.items())
        labels = ("method", "route")
        requests = CounterMetricFamily(
            "mixserve_http_requests", "Requests answered", labels=(*labels, "status")
        )
        for (method, route), figures in routes:
            for status, count in list(figures.n_by_status.items()):
                requests.add_metric((method, route, str(status)), count)
        yield requests
        for name, text, part in _DISTRIBUTIONS:
            family = HistogramMetricFamily(f"mixserve_http_{name}", text, labels=labels)
            for key, figures in routes:
                buckets, total = getattr(figures, part).buckets()
                family.add_metric(key, buckets, total)
            yield family
