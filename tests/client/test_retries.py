"""What the client does when connections break and services are busy."""

import json

import pytest

from service.client import Client, Conflict, Problem, ServiceUnreachable, TooManyRequests, Unauthorized
from service.client.calls import Caller
from service.schemas.mixture import GOLD
from tests.client.conftest import Script

WORKERS = (200, {"Content-Type": "application/json"}, b'{"items": []}')
BUSY = (503, {"Retry-After": "0"}, b"{}")
FIT = {
    "id": "fit_1", "status": "running", "created_at": "2026-01-01T00:00:00Z", "started_at": None,
    "finished_at": None, "attempt": 1, "priority": 0, "metadata": {}, "dataset_id": "dat_1", "request": {},
    "progress": None, "result": None, "error": None,
}  # fmt: skip


def connected(script: Script, **options: object) -> Client:
    return Client(script.url, trust_env=False, backoff_seconds=0.001, **options)


def event(number: int, status: str) -> bytes:
    data = {"id": number, "type": "status", "created_at": "2026-01-01T00:00:00Z", "data": {"status": status}}
    return f"event: status\ndata: {json.dumps(data)}\nid: {number}\n\n".encode()


def test_a_lost_connection_and_a_busy_service_are_tried_again(script: Script) -> None:
    script.answers = [None, BUSY, (429, {}, b"{}"), (502, {}, b"<html>"), WORKERS]
    with connected(script) as client:
        assert list(client.workers()) == []
    assert len(script.seen) == 5


def test_in_the_end_it_gives_up(script: Script) -> None:
    script.answers = [(429, {"Retry-After": "0"}, b'{"code": "QUEUE_FULL", "detail": "full"}')] * 3
    with connected(script, retries=2) as client, pytest.raises(TooManyRequests) as caught:
        client.health()
    assert caught.value.code == "QUEUE_FULL"
    script.answers = [None] * 3
    with connected(script, retries=2) as client, pytest.raises(ServiceUnreachable, match=script.url):
        client.health()
    assert len(script.seen) == 6


def test_what_would_be_refused_again_is_not_sent_again(script: Script) -> None:
    script.answers = [(409, {}, b'{"code": "X"}'), (500, {}, b"not JSON"), (418, {}, b"[]")]
    with connected(script) as client:
        for kind in (Conflict, Problem, Problem):
            with pytest.raises(kind):
                client.health()
    assert len(script.seen) == 3


def test_a_call_keeps_its_idempotency_key_and_another_has_its_own(script: Script) -> None:
    refused = (422, {}, b"{}")
    script.answers = [None, (409, {"Retry-After": "0"}, b"{}"), BUSY, refused, refused]
    with connected(script) as client:
        for _ in range(2):
            with pytest.raises(Problem):
                client.create_mixture(**GOLD)
    keys = [seen["Idempotency-Key"] for seen in script.seen]
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]
    assert all(seen["body"] == script.seen[0]["body"] for seen in script.seen)


def test_retry_after_is_waited_for_and_pauses_grow(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    script.answers = [(503, {"Retry-After": "7"}, b"{}"), WORKERS]
    with connected(script) as client:
        list(client.workers())
        bounds = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
        many = [list(Caller(client._http, 8, 0.5).pauses()) for _ in range(200)]
    waited = [seconds for seconds in slept if seconds >= 7]
    assert len(waited) == 1
    for pauses, bound in zip(zip(*many, strict=True), [*bounds, None], strict=True):
        if bound is None:
            assert set(pauses) == {None}
        else:
            assert 0.9 * bound < max(pauses) <= bound
            assert min(pauses) < 0.1 * bound


def test_a_delete_whose_answer_was_lost_has_been_done(script: Script) -> None:
    script.answers = [None, (404, {}, b"{}")]
    with connected(script) as client:
        client.delete_dataset("dat_1")
        script.answers = [(404, {}, b"{}")]
        with pytest.raises(Problem):
            client.delete_dataset("dat_1")


def test_events_go_on_where_the_connection_broke(script: Script) -> None:
    stream = {"Content-Type": "text/event-stream", "Connection": "close"}
    script.answers = [
        (200, {}, json.dumps(FIT).encode()),
        (200, stream | {"Content-Length": "9999"}, b"retry: 1\n\n" + event(1, "queued") + b"data: {"),
        None,
        (503, {"Retry-After": "0"}, b"{}"),
        (200, stream, b": ping\n\n" + event(1, "queued") + event(2, "running")),
        (200, stream, event(3, "succeeded")),
    ]
    with connected(script) as client:
        told = [(each.id, each.data["status"]) for each in client.get_fit("fit_1").events()]
    assert told == [(1, "queued"), (2, "running"), (3, "succeeded")]
    asked = [seen.get("Last-Event-ID") for seen in script.seen[1:]]
    assert asked == [None, "1", "1", "1", "2"]


def test_keys_go_out_as_bearer_tokens(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script.answers = [(401, {}, b"{}")] * 2
    with connected(script, api_key="one") as client, pytest.raises(Unauthorized):
        client.health()
    monkeypatch.setenv("MIXSERVE_API_KEY", "two")
    monkeypatch.setenv("MIXSERVE_URL", script.url)
    with Client(trust_env=False) as client, pytest.raises(Unauthorized):
        client.health()
    assert [seen["Authorization"] for seen in script.seen] == ["Bearer one", "Bearer two"]


def test_connections_that_are_refused() -> None:
    with (
        Client("http://127.0.0.1:9", retries=1, backoff_seconds=0.001, trust_env=False) as client,
        pytest.raises(ServiceUnreachable, match=r"127\.0\.0\.1:9"),
    ):
        client.health()
