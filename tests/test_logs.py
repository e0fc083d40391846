"""Lines of the log: those of requests, which are made in a way of their own, beside all others."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from service.logs import REQUEST_ID, RequestRecord, start_logging

KEY = "mixs_0123456789abcdef"
FIELDS = {"request_id": "mine", "path": f"/v1/{KEY}", "status": 200}
logger = logging.getLogger("service.access")


@pytest.fixture
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers = []
    monkeypatch.setattr(sys, "stderr", stream)
    start_logging("info", request.param)
    yield stream
    root.handlers, root.level = before


async def two_requests() -> None:
    for status in (200, 404):
        logger.handle(RequestRecord(logger, FIELDS | {"status": status}))


@pytest.mark.parametrize("said", ["json"], indirect=True)
def test_requests_are_lines_of_json_like_all_others(said: io.StringIO) -> None:
    asyncio.run(two_requests())
    token = REQUEST_ID.set("mine")
    logger.info("request", extra=FIELDS)
    REQUEST_ID.reset(token)
    first, second, other = map(json.loads, said.getvalue().splitlines())
    assert KEY not in said.getvalue()
    assert first["path"] == "/v1/mixs_..."
    assert first["timestamp"][:11] == other["timestamp"][:11]
    assert len(first["timestamp"]) == len(other["timestamp"])
    assert {**first, "timestamp": ""} == {**other, "timestamp": ""}
    assert second["status"] == 404


@pytest.mark.parametrize("said", ["json"], indirect=True)
def test_what_is_logged_next_waits_for_no_turn_of_the_loop(said: io.StringIO) -> None:
    async def both() -> list[str]:
        await two_requests()
        logging.getLogger("other").warning("now")
        return said.getvalue().splitlines()

    assert len(asyncio.run(both())) == 3


@pytest.mark.parametrize("said", ["console"], indirect=True)
def test_people_read_of_requests_too(said: io.StringIO) -> None:
    asyncio.run(two_requests())
    first, second = said.getvalue().splitlines()
    assert KEY not in first
    for text in ("request", "request_id", "mine", "/v1/mixs_...", "service.access", "200"):
        assert text in first
    assert "404" in second


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "as_json"), [(Terminal(), False), (io.StringIO(), True)])
def test_a_terminal_gets_lines_for_people_and_all_else_json(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, as_json: bool
) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers = []
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        start_logging("info", "auto")
        try:
            raise ValueError(KEY)
        except ValueError:
            logging.getLogger("other").exception("it is %s", "broken", extra={"fit_id": "fit_1"})
    finally:
        root.handlers, root.level = before
    said = stream.getvalue()
    for text in ("it is broken", "fit_1", "other", "ValueError", "error"):
        assert text in said
    assert KEY not in said
    if as_json:
        (line,) = said.splitlines()
        assert json.loads(line)["fit_id"] == "fit_1"
    else:
        assert len(said.splitlines()) > 3  # the traceback, line by line
