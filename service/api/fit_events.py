"""/v1/fits/{fit_id}/events: what happens to a fit, as it happens or page by page."""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from service.api.answers import JSON, JsonAnswer, negotiate
from service.api.query import LARGEST_PAGE
from service.api.services import Services, Use
from service.errors import Unavailable
from service.schemas.fit import FINAL_STATUSES, FitEvent
from service.schemas.service import Page
from service.storage import events, fits
from service.storage.tables import FitEventRow

router = APIRouter(prefix="/v1/fits", tags=["fits"])
EVENT_STREAM = "text/event-stream"
_RETRY_MS = 1000
_STREAM_EXAMPLE = (
    "retry: 1000\n\n"
    "event: status\n"
    'data: {"id":1,"type":"status","created_at":"2026-01-01T00:00:00Z","data":{"status":"queued"}}\n'
    "id: 1\n\n"
)
# OpenAPI has a place for what each event of a stream holds from 3.2 on; until then readers differ.
_STREAM = {
    "schema": {
        "anyOf": [
            {"type": "string", "description": "the stream"},
            {
                "type": "object",
                "description": "each event in it; the first only says after how many ms to come again",
                "properties": {
                    "id": {"type": "string", "pattern": "^[0-9]+$"},
                    "event": {"enum": ["status", "progress", "log"]},
                    "data": {
                        "type": "string",
                        "contentMediaType": JSON,
                        "contentSchema": {"$ref": f"#/components/schemas/{FitEvent.__name__}"},
                    },
                    "retry": {"type": "integer"},
                },
            },
        ]
    },
    "example": _STREAM_EXAMPLE,
}
_PING_SECONDS = 15.0
_EVENT_ID, _MOST_DIGITS = re.compile(r"[0-9]+"), 18


@router.get(
    "/{fit_id}/events",
    response_model=Page[FitEvent],
    responses={
        200: {"content": {EVENT_STREAM: _STREAM}},
        204: {"description": "the stream has ended, and the client has seen all of it"},
    },
    operation_id="get_fit_events",
)
async def get_fit_events(
    fit_id: str,
    request: Request,
    services: Use,
    last_event_id: Annotated[str | None, Header(description="a stream goes on behind this id")] = None,
    page_size: Annotated[int, Query(ge=1, description=f"JSON: more than {LARGEST_PAGE} is cut to that")] = 50,
    page_token: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="JSON: next_page_token")
    ] = None,
) -> Response:
    """Streams events as they happen, or lists them oldest first with `Accept: application/json`."""
    media_type = negotiate(request, (JSON, EVENT_STREAM))
    n_events, ended = await run_in_threadpool(_standing, services, fit_id)
    if media_type == JSON:
        after = int(page_token or 0)
        return await run_in_threadpool(_page, services, fit_id, after, min(page_size, LARGEST_PAGE))
    known = last_event_id is not None and _EVENT_ID.fullmatch(last_event_id)
    # No fit has as many events as can be counted with these; what is longer is behind them all.
    seen = int(last_event_id[:_MOST_DIGITS]) if last_event_id and known else 0
    if ended and seen >= n_events:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(services, fit_id, seen), media_type=EVENT_STREAM, headers=headers)


async def _stream(services: Services, fit_id: str, seen: int) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RETRY_MS)
    try:
        with services.watcher.watching(fit_id):
            async for block in _blocks(services, fit_id, seen):
                yield block
    except Unavailable:
        # The answer has begun, so no problem can be sent; the client comes again behind its last event.
        yield format_sse_event(comment="the database does not answer", retry=_RETRY_MS)


async def _blocks(services: Services, fit_id: str, seen: int) -> AsyncIterator[bytes]:
    while True:
        read = partial(_after, services, fit_id, seen, LARGEST_PAGE)
        rows = await services.watcher.shared(("events", fit_id, seen), read)
        for row in rows:
            seen = row.number
            data = to_json(_as_answer(row), inf_nan_mode="strings").decode()
            yield format_sse_event(id=str(row.number), event=row.type, data_str=data)
            if row.type == "status" and row.data["status"] in FINAL_STATUSES:
                return
        if rows:
            continue
        if not await services.watcher.wait(fit_id, seen, _PING_SECONDS):
            if services.watcher.draining.is_set():
                yield format_sse_event(retry=_RETRY_MS)
                return
            yield format_sse_event(comment="ping")
        elif not await run_in_threadpool(_exists, services, fit_id):
            return


def _standing(services: Services, fit_id: str) -> tuple[int, bool]:
    with services.database.read() as session:
        row = fits.get(session, fit_id)
    return row.n_events, row.status in FINAL_STATUSES


def _exists(services: Services, fit_id: str) -> bool:
    with services.database.read() as session:
        return bool(fits.states(session, [fit_id]))


def _after(services: Services, fit_id: str, number: int, limit: int) -> list[FitEventRow]:
    with services.database.read() as session:
        return events.after(session, fit_id, number, limit)


def _page(services: Services, fit_id: str, after: int, page_size: int) -> Response:
    rows = _after(services, fit_id, after, page_size + 1)
    items = [_as_answer(row) for row in rows[:page_size]]
    more = len(rows) > page_size
    return JsonAnswer({"items": items} | ({"next_page_token": str(items[-1]["id"])} if more else {}))


def _as_answer(row: FitEventRow) -> dict[str, Any]:
    return {"id": row.number, "type": row.type, "created_at": row.created_at, "data": row.data}
