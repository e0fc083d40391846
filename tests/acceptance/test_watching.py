"""The service seen from outside: metrics, logs and traces of two API processes and a worker."""

import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import GOLD, Server, serving, until

ROOT = Path(__file__).parents[2]
FIT = {"dataset": {"gold": GOLD, "n_samples": 500}, "n_components": 2, "n_init": 2}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@dataclass
class Collector:
    """What receives spans, on the loopback."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)

    def by_service(self, service: str) -> list[Any]:
        return [span for name, span in self.spans if name == service]


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collected = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                (service,) = (
                    attribute.value.string_value
                    for attribute in resource.resource.attributes
                    if attribute.key == "service.name"
                )
                for scope in resource.scope_spans:
                    collected.spans += [(service, span) for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collected.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield collected
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Watched:
    """Two servers on one database, the first with a worker, and a fit that was done."""

    servers: tuple[Server, Server]
    fit: dict[str, Any]

    def lines(self) -> list[dict[str, Any]]:
        """What the first has logged; all of it is JSON."""
        logged = [line for line in list(self.servers[0].lines) if not line.startswith("mixserve listens")]
        return [json.loads(line) for line in logged]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Watched]:
    data_dir = tmp_path_factory.mktemp("watched")
    settings = {"otlp_endpoint": collector.url, "lease_seconds": 2}
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with serving(data_dir, **settings) as first, serving(data_dir, workers=0, **settings) as second:
            with first.client() as http:
                headers = {
                    "Prefer": "wait=60",
                    "traceparent": f"00-{TRACE}-{PARENT}-01",
                    "X-Request-Id": "the-fit",
                }
                fit = http.post("/v1/fits", json=FIT, headers=headers).json()
            assert fit["status"] == "succeeded", fit
            yield Watched((first, second), fit)


def figures(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Returns every sample of `/metrics` by its name and labels."""
    with server.client() as http:
        answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> list[float]:
    """Returns the values of a metric whose labels include these."""
    return [value for (called, has), value in found.items() if called == name and labels.items() <= set(has)]


def test_requests_are_counted_by_the_template_of_their_route(watched: Watched) -> None:
    first, second = watched.servers
    before = figures(second)
    template, ident = "/v1/fits/{fit_id}", watched.fit["id"]
    with second.client() as http:
        for _ in range(3):
            http.get(f"/v1/fits/{ident}")
        http.get("/v1/fits/fit_nothing")
        for path in ("/a", "/b", "/v1/c"):
            http.get(path)
    after = figures(second)
    labels = {"method": "GET", "route": template}
    assert of(after, "mixserve_http_requests_total", **labels, status="200") == [3]
    assert of(after, "mixserve_http_requests_total", **labels, status="404") == [1]
    assert of(after, "mixserve_http_request_duration_seconds_count", **labels) == [4]
    (n_bytes,) = of(after, "mixserve_http_response_size_bytes_sum", **labels)
    assert n_bytes > 3 * len(json.dumps(watched.fit["result"])) / 2
    assert of(after, "mixserve_http_requests_total", route="none", status="404") == [3]
    assert of(after, "mixserve_http_problems_total", code="FIT_NOT_FOUND") == [1]
    assert of(before, "mixserve_http_requests_total", **labels) == []
    # The other process has counted its own.
    posted = figures(first)
    assert of(posted, "mixserve_http_requests_total", method="POST", route="/v1/fits", status="202") == [1]
    (n_bytes,) = of(posted, "mixserve_http_request_size_bytes_sum", method="POST", route="/v1/fits")
    assert n_bytes == len(json.dumps(FIT, separators=(",", ":")))
    assert not any(ident in str(labels) for _, labels in posted)


def test_every_process_tells_what_the_workers_have_counted(watched: Watched) -> None:
    first, second = watched.servers
    until(lambda: of(figures(second), "mixserve_fits_succeeded_total") == [1])
    for found in (figures(first), figures(second)):
        assert of(found, "mixserve_database_up") == [1]
        assert of(found, "mixserve_workers", device="cpu") == [1]
        assert of(found, "mixserve_fits", status="queued") == [0]
        assert of(found, "mixserve_oldest_queued_fit_age_seconds") == [0]
        assert of(found, "mixserve_claims_total") == [1]
        assert of(found, "mixserve_lost_leases_total") == [0]
        (busy,) = of(found, "mixserve_device_busy_seconds_total")
        (wait,) = of(found, "mixserve_claim_wait_seconds_sum")
        assert of(found, "mixserve_claim_wait_seconds_count") == [1]
        bounds = [("60.0" if wait <= 60 else "+Inf"), "+Inf"]
        assert [of(found, "mixserve_claim_wait_seconds_bucket", le=bound) for bound in bounds] == [[1], [1]]
        assert 0 <= wait < 60
        assert 0 < busy < 60
        assert of(found, "mixserve_fitted_points_total") == [500 * watched.fit["result"]["n_passes"]]
        (used,), (whole,) = (of(found, f"mixserve_device_memory_{name}") for name in ("used_bytes", "bytes"))
        assert 10_000_000 < used < whole


def test_what_processes_count_adds_up(watched: Watched) -> None:
    labels = {"method": "GET", "route": "/v1/datasets", "status": "200"}
    asked = (3, 5)
    for server, n in zip(watched.servers, asked, strict=True):
        with server.client() as http:
            for _ in range(n):
                assert http.get("/v1/datasets").is_success
    found = [of(figures(server), "mixserve_http_requests_total", **labels) for server in watched.servers]
    assert found == [[3], [5]]
    # What all have in common is told once by each: two scrapes have the same of it.
    shared = [of(figures(server), "mixserve_fitted_points_total") for server in watched.servers]
    assert shared[0] == shared[1]


def test_points_that_are_asked_about_are_counted(watched: Watched) -> None:
    path = f"/v1/mixtures/{watched.fit['result']['mixture_id']}/log-density"
    (before,) = of(figures(watched.servers[1]), "mixserve_scored_points_total")
    with watched.servers[1].client() as http:
        for query in ("", "?per_component=true"):
            assert http.post(path + query, json={"points": [[0.0, 0.0]] * 3}).is_success
        refused = http.post(path, json={"points": [[0.0]]})
    after = figures(watched.servers[1])
    assert of(after, "mixserve_scored_points_total") == [before + 6]
    # And so are their requests, those that are answered before they are routed too.
    labels = {"method": "POST", "route": "/v1/mixtures/{mixture_id}/log-density"}
    assert refused.status_code == 422
    assert of(after, "mixserve_http_requests_total", **labels, status="200") == [2]
    assert of(after, "mixserve_http_requests_total", **labels, status="422") == [1]
    assert of(after, "mixserve_http_request_duration_seconds_count", **labels) == [3]
    assert of(after, "mixserve_http_request_duration_seconds_bucket", **labels, le="+Inf") == [3]
    assert of(after, "mixserve_http_request_size_bytes_bucket", **labels, le="64.0") == [3]
    assert of(after, "mixserve_http_requests_in_progress") == [1]  # the one that asks


def test_the_queue_is_told_as_it_stands(tmp_path: Path) -> None:
    with serving(tmp_path, workers=0) as server, server.client() as http:
        for _ in range(2):
            http.post("/v1/fits", json=FIT)
        found = figures(server)
        assert of(found, "mixserve_fits", status="queued") == [2]
        (age,) = of(found, "mixserve_oldest_queued_fit_age_seconds")
        assert 0 < age < 60


def test_the_dashboard_asks_for_what_is_there(watched: Watched) -> None:
    dashboard = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(queries) >= 10
    asked = {name for query in queries for name in re.findall(r"mixserve_\w+", query)}
    with watched.servers[0].client() as http:
        assert http.get("/nowhere").status_code == 404
    there = {name for name, _ in figures(watched.servers[0])}
    assert asked <= there, asked - there
    # And of what is there, nothing that counts is left out.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in there if not name.endswith("_created")}
    assert known - shown == set(), known - shown


def test_logs_are_json_with_the_ids_of_what_they_are_about(watched: Watched) -> None:
    (line,) = [line for line in watched.lines() if line.get("request_id") == "the-fit"]
    assert (line["event"], line["level"], line["logger"]) == ("request", "info", "service.access")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/fits", 202)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
    of_worker = [line for line in watched.lines() if line.get("fit_id") == watched.fit["id"]]
    assert {line["logger"] for line in of_worker} == {"service.worker.supervisor"}
    (worker_id,) = {line["worker_id"] for line in of_worker}
    with watched.servers[0].client() as http:
        assert [worker["id"] for worker in http.get("/v1/workers").json()["items"]] == [worker_id]


def test_deletes_are_in_the_audit(watched: Watched) -> None:
    with watched.servers[0].client() as http:
        location = http.post("/v1/datasets", json={"points": [[1.0]]}).headers["location"]
        http.delete(location, headers={"X-Request-Id": "the-delete"})
    (line,) = until(lambda: [line for line in watched.lines() if line.get("request_id") == "the-delete"])
    assert line["audit"] is True
    assert (line["method"], line["path"], line["status"]) == ("DELETE", location, 204)


def test_a_trace_goes_from_the_request_to_the_worker(watched: Watched, collector: Collector) -> None:
    trace_id = bytes.fromhex(TRACE)

    def spans(service: str) -> list[Any]:
        return [span for span in collector.by_service(service) if span.trace_id == trace_id]

    (request,) = until(lambda: spans("mixserve-api"))
    (fit,) = until(lambda: spans("mixserve-worker"))
    assert request.name == "POST /v1/fits"
    assert request.parent_span_id == bytes.fromhex(PARENT)
    assert fit.name == "fit"
    assert fit.parent_span_id == request.span_id
    said = {attribute.key: attribute.value.string_value for attribute in fit.attributes}
    assert said["mixserve.fit_id"] == watched.fit["id"]
    assert said["mixserve.outcome"] == "succeeded"
    own = [span for span in collector.by_service("mixserve-api") if span.trace_id != trace_id]
    assert own  # requests without a trace begin one
