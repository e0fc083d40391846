"""/v1/fits/{fit_id}/events: a stream, a list, and how each is taken up again."""

import json
from typing import Any

import httpx

from tests.api.test_fits import queued
from tests.api.test_problems import assert_problem

STREAM = {"Accept": "text/event-stream"}


def parsed(text: str) -> list[dict[str, Any]]:
    """Returns the events of a stream: id, event, data."""
    blocks = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")
    ]
    return [block for block in blocks if "data" in block]


def ended(http: httpx.Client) -> str:
    fit = queued(http)
    http.post(f"/v1/fits/{fit['id']}/cancel")
    return f"/v1/fits/{fit['id']}/events"


def test_a_stream_ends_behind_the_final_status(http: httpx.Client) -> None:
    response = http.get(ended(http), headers=STREAM)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "retry: " in response.text
    events = parsed(response.text)
    assert [event["id"] for event in events] == ["1", "2"]
    assert [event["event"] for event in events] == ["status", "status"]
    bodies = [json.loads(event["data"]) for event in events]
    assert [body["data"]["status"] for body in bodies] == ["queued", "cancelled"]
    assert [body["id"] for body in bodies] == [1, 2]


def test_a_stream_goes_on_behind_the_last_event(http: httpx.Client) -> None:
    path = ended(http)
    events = parsed(http.get(path, headers=STREAM | {"Last-Event-ID": "1"}).text)
    assert [event["id"] for event in events] == ["2"]
    assert http.get(path, headers=STREAM | {"Last-Event-ID": "2"}).status_code == 204
    assert len(parsed(http.get(path, headers=STREAM | {"Last-Event-ID": "x"}).text)) == 2
    assert len(parsed(http.get(path, headers=STREAM | {"Last-Event-ID": "9" * 400}).text or "\n")) == 0


def test_a_stream_tells_what_happens_while_it_is_open(http: httpx.Client) -> None:
    fit = queued(http)
    with http.stream("GET", f"/v1/fits/{fit['id']}/events", headers=STREAM) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("id:")) == "id: 1"
        http.post(f"/v1/fits/{fit['id']}/cancel")
        assert next(line for line in lines if line.startswith("id:")) == "id: 2"
        assert [line for line in lines if line] == []


def test_the_same_events_as_pages_oldest_first(http: httpx.Client) -> None:
    path = ended(http)
    whole = http.get(path, headers={"Accept": "application/json"}).json()
    assert [event["id"] for event in whole["items"]] == [1, 2]
    assert "next_page_token" not in whole
    first = http.get(f"{path}?page_size=1", headers={"Accept": "application/json"}).json()
    second = http.get(
        f"{path}?page_size=1&page_token={first['next_page_token']}", headers={"Accept": "application/json"}
    ).json()
    assert first["items"] + second["items"] == whole["items"]
    assert "next_page_token" not in second
    assert_problem(http.get(f"{path}?page_token=-1"), 422)
    assert_problem(http.get(path, headers={"Accept": "text/csv"}), 406)
