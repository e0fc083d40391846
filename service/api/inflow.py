"""Request bodies as streams: the event loop takes the bytes in, a thread reads them."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Protocol

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from service.codecs.compression import ENCODINGS, BadCompression, Decompressed
from service.codecs.points import Stream
from service.errors import ServiceError

# A reader is woken for so many bytes, and a client that sends faster than they are read waits at so many.
_WORTH_WAKING_BYTES = 1 << 18
_MOST_HELD_BYTES = 4 << 20
# Larger pieces are not joined to others.
_LARGE_BYTES = 1 << 17

SMALL_BYTES = 1 << 10
"""Pieces are kept as they come, but for smaller ones, which would take more memory than their bytes."""

BROKEN_OFF = "broken_off"
"""Where a request's state says why no more of its body comes, if it was the server who ended that."""


class Digest(Protocol):
    """A hash that grows."""

    def update(self, data: bytes, /) -> None:
        """Adds bytes."""

    def hexdigest(self) -> str:
        """Returns it as it is now."""


class _Pipe:
    """Bytes between the event loop that takes them in and the thread that reads them.

    Attributes:
        waiting_since: Since when the thread waits for bytes, by `time.monotonic`; None while it does not.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._worth_reading = asyncio.Event()
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._n_taken = 0  # so many bytes of the first piece have been read
        self._n_held = 0
        self._is_full = False
        self._end: BaseException | bool = False
        self.waiting_since: float | None = None

    async def put(self, piece: bytes) -> None:
        """Adds bytes; waits while there are too many."""
        with self._changed:
            if self._pieces and len(self._pieces[-1]) < SMALL_BYTES:
                self._pieces[-1] += piece
            else:
                self._pieces.append(piece)
            self._n_held += len(piece)
            if self._n_held >= _WORTH_WAKING_BYTES:
                self._changed.notify()
                self._worth_reading.set()
            is_full = self._is_full = self._n_held >= _MOST_HELD_BYTES
        if is_full:
            self._room.clear()  # whoever reads meanwhile sets it by way of the loop, and so later
            await self._room.wait()

    def end(self, reason: BaseException | None = None) -> None:
        """Says that no more bytes come, and why not when there should be more."""
        with self._changed:
            self._end = self._end or reason or True
            self._changed.notify()
        self._worth_reading.set()

    async def worth_reading(self) -> None:
        """Waits until all or much has come: slow senders would occupy threads that others need."""
        await self._worth_reading.wait()

    def read(self, size: int) -> bytes:
        """Returns up to so many bytes as soon as there are enough to be worth it, none at the end.

        Raises:
            ServiceError: No more bytes come, though there should be some.
        """
        enough = min(size, _WORTH_WAKING_BYTES)
        with self._changed:
            if self._n_held < enough and not self._end:
                self.waiting_since = time.monotonic()
                self._changed.wait_for(lambda: self._n_held >= enough or self._end)
                self.waiting_since = None
            if isinstance(self._end, BaseException):
                raise self._end
            taken = self._taken(size)
            was_full, self._is_full = self._is_full, False
        if was_full:
            self._loop.call_soon_threadsafe(self._room.set)
        return b"".join(taken)

    def _taken(self, size: int) -> list[bytes]:
        taken: list[bytes] = []
        n_bytes = 0
        while n_bytes < min(size, _LARGE_BYTES) and self._pieces:
            part = self._pieces[0][self._n_taken : self._n_taken + size - n_bytes]
            taken.append(part)
            n_bytes += len(part)
            self._n_held -= len(part)
            self._n_taken += len(part)
            if self._n_taken == len(self._pieces[0]):
                self._pieces.popleft()
                self._n_taken = 0
        return taken


class Inflow:
    """A request's body, decompressed, for a thread to read once from front to back.

    Attributes:
        digest: What is given to it grows with the bytes that are read.
    """

    def __init__(self, pipe: Stream, encoding: str, limit_bytes: int) -> None:
        self._source = pipe if encoding == "identity" else Decompressed(pipe, encoding)
        self._limit = limit_bytes
        self._n_bytes = 0
        self.digest: Digest | None = None

    def read(self, size: int) -> bytes:
        """Returns up to so many bytes, none at the end.

        Raises:
            ServiceError: There are too many (413), they are not what Content-Encoding says (400), or no more
                come though there should be some.
        """
        try:
            piece = self._source.read(size)
        except BadCompression as error:
            raise ServiceError("INVALID_ENCODING", 400, f"The request cannot be read: {error}.") from error
        self._n_bytes += len(piece)
        if self._n_bytes > self._limit:
            raise too_large(self._limit)
        if self.digest is not None:
            self.digest.update(piece)
        return piece


class Incoming(Inflow):
    """A body that keeps coming, or keeps the thread that reads it waiting."""

    def __init__(self, pipe: _Pipe, encoding: str, limit_bytes: int) -> None:
        super().__init__(pipe, encoding, limit_bytes)
        self._pipe = pipe

    @property
    def waiting_seconds(self) -> float:
        """For how long the thread that reads has been waiting for bytes; 0 while it is not."""
        since = self._pipe.waiting_since
        return 0.0 if since is None else time.monotonic() - since

    def give_up(self, error: ServiceError) -> None:
        """Has whoever reads hear that no more comes, and why."""
        self._pipe.end(error)


@asynccontextmanager
async def inflow(request: Request, limit_bytes: int) -> AsyncIterator[Incoming]:
    """Yields a request's body while it comes in, from when there is enough of it to occupy a thread with.

    Raises:
        ServiceError: It says that it is too large (413), or its encoding is not spoken (415).
    """
    encoding = require_encoding(request)
    refuse_declared(request, limit_bytes)
    pipe = _Pipe()
    pump = asyncio.create_task(_pump(request, pipe))
    try:
        await pipe.worth_reading()
        yield Incoming(pipe, encoding, limit_bytes)
    finally:
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump
        pipe.end(disconnected(request.scope))


async def _pump(request: Request, pipe: _Pipe) -> None:
    try:
        async for piece in request.stream():
            await pipe.put(piece)
    except ClientDisconnect:
        pipe.end(disconnected(request.scope))
    else:
        pipe.end()


def require_encoding(request: Request) -> str:
    """Returns the body's encoding.

    Raises:
        ServiceError: It is not spoken here (415).
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in (*ENCODINGS, "identity"):
        raise ServiceError(
            "UNSUPPORTED_ENCODING", 415, f"Content-Encoding must be one of {', '.join(ENCODINGS)}, or absent."
        )
    return encoding


def refuse_declared(request: Request, limit_bytes: int) -> None:
    """Refuses, before it comes, a body that says that it is too large.

    Raises:
        ServiceError: It does (413).
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise too_large(limit_bytes)


def too_large(limit_bytes: int) -> ServiceError:
    """Returns the refusal of a body above the limit."""
    return ServiceError(
        "BODY_TOO_LARGE",
        413,
        f"The body, decompressed, is larger than the {limit_bytes} bytes that are taken.",
    )


def disconnected(scope: Scope) -> ServiceError:
    """Returns the error of a body that never became whole."""
    why: ServiceError | None = scope["state"].get(BROKEN_OFF)
    gone = ServiceError("CLIENT_DISCONNECTED", 400, "The connection closed before the body was whole.")
    return why or gone
