"""How the bytes of a connection come in: in large pieces, and copied as seldom as can be."""

import asyncio
from collections.abc import Callable

from typing_extensions import override

from service.api.inflow import SMALL_BYTES

# So much is taken from a socket at once: less would be more calls, more would leave a core's cache meanwhile.
_PIECE_BYTES = 1 << 19


class Arrived:
    """The bytes of a body as they came, in the place of uvicorn's bytearray, which copies them twice more."""

    __slots__ = ("_n_bytes", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._n_bytes = 0

    def __iadd__(self, piece: bytes) -> "Arrived":
        if self._pieces and len(self._pieces[-1]) < SMALL_BYTES:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self._n_bytes += len(piece)
        return self

    def __len__(self) -> int:
        return self._n_bytes

    def __bytes__(self) -> bytes:
        return b"".join(self._pieces)  # of one, that one


class Receiving(asyncio.BufferedProtocol):
    """What the event loop sees of a connection: it puts all that comes where that of all others was, too.

    So pieces are larger than the loop's own, and are copied once less.

    Args:
        protocol: Is told of all else that happens to the connection.
        received: Is given what has come, which is overwritten once it has returned.
    """

    _room = memoryview(bytearray(_PIECE_BYTES))

    def __init__(self, protocol: asyncio.Protocol, received: Callable[[memoryview], None]) -> None:
        self._protocol = protocol
        self._received = received

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self._received(self._room[:nbytes])

    @override
    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    @override
    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
