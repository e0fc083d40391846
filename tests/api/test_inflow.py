"""Bodies that come in slowly, or no further."""

import asyncio
from typing import Any

import pytest
from fastapi import Request

from service.api import inflow
from service.errors import ServiceError


def _request(*pieces: bytes) -> Request:
    """A request whose client sends these and then neither more nor the end."""
    coming = iter(pieces)

    async def receive() -> dict[str, Any]:
        piece = next(coming, None)
        if piece is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": True}

    return Request({"type": "http", "headers": []}, receive)


async def _read(request: Request, *sizes: int) -> list[bytes]:
    async with inflow.inflow(request, limit_bytes=1 << 30) as body:
        return [await asyncio.to_thread(body.read, size) for size in sizes]


def test_a_sender_that_falls_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflow, "_LONGEST_SILENCE_SECONDS", 0.05)
    with pytest.raises(ServiceError) as refused:
        asyncio.run(_read(_request(b"{"), 1 << 20))
    assert (refused.value.status, refused.value.code) == (408, "REQUEST_TIMEOUT")


def test_what_came_is_read_before_the_silence_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflow, "_LONGEST_SILENCE_SECONDS", 0.05)
    large = bytes(1 << 18)
    assert asyncio.run(_read(_request(large, large), 1 << 18, 1 << 18)) == [large, large]
