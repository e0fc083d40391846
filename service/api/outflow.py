"""Answers that are kept until all of the request has been read, and then sent from where they lie.

Most clients read nothing before they have sent everything: an answer sent meanwhile would fill the buffers in
between, and both sides would wait for ever. And only then is it known that the last point is no mistake.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import BinaryIO

from anyio import to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.errors import Unprocessable

_MOST_IN_MEMORY = 16 << 20
_SENT_AT_ONCE = 1 << 18


class Outflow:
    """Bytes, in memory while they are few, in a file when they are many.

    Args:
        scratch: Opens an empty file, gone when closed.
        limit_bytes: How many there may be.
    """

    def __init__(self, scratch: Callable[[], BinaryIO], limit_bytes: int) -> None:
        self._scratch = scratch
        self._limit = limit_bytes
        self._pieces: list[bytes | memoryview] = []
        self._file: BinaryIO | None = None
        self.head = b""
        self._n_bytes = 0

    def append(self, piece: bytes | memoryview) -> None:
        """Adds bytes.

        Raises:
            Unprocessable: There are too many.
        """
        self._n_bytes += len(piece)
        if self._n_bytes > self._limit:
            raise Unprocessable(
                f"The answer is larger than the {self._limit} bytes that are served; ask for it in parts.",
                code="ANSWER_TOO_LARGE",
            )
        if self._file is None and self._n_bytes > _MOST_IN_MEMORY:
            self._file = self._scratch()
            self._file.writelines(self._pieces)
            self._pieces.clear()
        if self._file is None:
            self._pieces.append(piece)
        else:
            self._file.write(piece)

    @property
    def n_bytes(self) -> int:
        """How many there are, those of `head` among them."""
        return len(self.head) + self._n_bytes

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        """Yields `head` and then all that was added, in pieces that are worth sending."""
        for piece in _joined([self.head, *self._pieces]):
            yield piece
        if self._file is not None:
            self._file.seek(0)
            while piece := await to_thread.run_sync(self._file.read, _SENT_AT_ONCE):
                yield piece

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()


def _joined(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    held: list[bytes | memoryview] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= _SENT_AT_ONCE:
            yield b"".join(held) if len(held) > 1 else piece
            held, n_held = [], 0
    if held:
        yield b"".join(held)


class OutflowAnswer(StreamingResponse):
    """Sends an outflow, and closes it."""

    def __init__(self, outflow: Outflow, media_type: str) -> None:
        self._outflow = outflow
        headers = {"Content-Length": str(outflow.n_bytes), "Vary": "Accept"}
        super().__init__(outflow.pieces(), headers=headers, media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._outflow.close()
