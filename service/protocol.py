"""HTTP/1.1 as strangers speak it: deadlines, limits, and a problem document for what is no request."""

import asyncio
import logging
import secrets
from typing import Any

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.api.inflow import BROKEN_OFF
from service.api.problems import MEDIA_TYPE, document
from service.arriving import Arrived, Receiving
from service.errors import ServiceError
from service.settings import Settings

logger = logging.getLogger("service.access")
_SLOWEST_BYTES_PER_SECOND = 100
# Chunks of single bytes take six on the wire, and whoever sends them is within the rules.
_MOST_AROUND_BYTES = 1 << 16
_MOST_AROUND_A_BYTE = 8
_MOST_PIPELINED = 16
# Copying less than this costs less than not to.
_WORTH_KEEPING_BYTES = 1 << 14

_MALFORMED = ServiceError(
    "BAD_REQUEST",
    400,
    "This is no HTTP/1.1 request: its first line, its method, a header or its body is malformed.",
)


def protocol(settings: Settings) -> "type[Protocol]":
    """Returns the protocol of a server with these settings."""

    class Limited(Protocol):
        head_seconds = settings.head_seconds
        body_seconds = settings.body_seconds
        max_head_bytes = settings.max_head_bytes

    return Limited


class _Dropped(list[tuple[bytes, bytes]]):
    """Where trailers go: the headers have been looked at already."""

    @override
    def append(self, header: tuple[bytes, bytes], /) -> None:
        pass


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 by uvicorn and httptools, which by themselves wait for ever and keep whatever comes.

    Attributes:
        head_seconds: A first line and headers come within so long.
        body_seconds: In each stretch of so long a body comes on at a least pace, unless it is us who pause;
            and an answer goes out at that pace.
        max_head_bytes: A first line and headers are no larger.
    """

    head_seconds: float
    body_seconds: float
    max_head_bytes: int

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._served: RequestResponseCycle | None = None
        self._coming: asyncio.TimerHandle | None = None
        self._going: asyncio.TimerHandle | None = None
        self._in_head = self._in_body = False
        self._n_head = self._n_body = self._n_around = 0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_protocol(Receiving(self, self.received))
        self._expect_more()

    def received(self, data: memoryview) -> None:
        """Takes bytes that are overwritten once this has returned."""
        if self._in_body and len(data) >= _WORTH_KEEPING_BYTES:
            self._take(data)
        else:
            self.data_received(bytes(data))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self.resume_writing()
        # Where requests are pipelined, uvicorn tells the last of them only, while an earlier one is served.
        if self._served is not None:
            self._served.disconnected = True
            self._served.message_event.set()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._take(data)

    def _take(self, data: bytes | memoryview) -> None:
        self._unset_keepalive_if_required()
        try:
            if self._in_body:
                self._feed_body(data)
            else:
                self._feed_head(data)
        except httptools.HttpParserError:
            self._refuse(_MALFORMED)
        except httptools.HttpParserUpgrade:
            pass  # it is answered as it is: a server need not upgrade
        if self.transport.is_closing():
            return
        if len(self.pipeline) > _MOST_PIPELINED:
            self.transport.close()
        elif self._coming is None:
            self._expect_more()

    def _feed_head(self, data: bytes | memoryview) -> None:
        while data:
            piece = data if self._in_body else data[: self.max_head_bytes - self._n_head]
            data = data[len(piece) :]
            if not self._in_body:
                self._n_head += len(piece)
            self.parser.feed_data(piece)
            if self._n_head >= self.max_head_bytes:
                limit = self.max_head_bytes
                detail = f"The first line and the headers take {limit} bytes or more; send fewer."
                self._refuse(ServiceError("HEADERS_TOO_LARGE", 431, detail))
                return

    def _feed_body(self, data: bytes | memoryview) -> None:
        before = self._n_body
        self.parser.feed_data(data)
        self._n_around += len(data) - (self._n_body - before)
        if self._in_body and self._n_around > _MOST_AROUND_BYTES + _MOST_AROUND_A_BYTE * self._n_body:
            self._refuse(_MALFORMED)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True

    @override
    def on_headers_complete(self) -> None:
        self._expect_nothing()
        self._in_head, self._n_head = False, 0
        # With two, a proxy could be of another opinion than we whom the request is for (RFC 9112, 3.2).
        n_hosts = [name for name, _ in self.headers].count(b"host")
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1") or n_hosts > 1 or (n_hosts == 0 and version == "1.1"):
            raise ValueError("another version, or not one Host")
        super().on_headers_complete()
        self._in_body = True
        self.headers = _Dropped()

    @override
    def on_body(self, body: bytes) -> None:
        self._n_body += len(body)
        # It is empty at first, and when what was in it has been taken.
        if len(body) >= _WORTH_KEEPING_BYTES and not self.cycle.body:
            self.cycle.body = Arrived()  # type: ignore[assignment]
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._expect_nothing()
        self._in_body = False
        super().on_message_complete()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.serves(cycle)
        super()._start_asgi_task(cycle, app)

    def serves(self, cycle: RequestResponseCycle) -> None:
        """Notes that the answer to a request is next."""
        self._served = cycle

    @property
    def is_between_requests(self) -> bool:
        """Whether the last request has come to its end and has been answered; at the first there was none."""
        answered = self._served is not None and self._served.response_complete
        return answered and not (self._in_head or self._in_body)

    def _expect_more(self) -> None:
        """Sets a time for what has to come next, if anything has to."""
        if self._in_body:
            self._n_body = self._n_around = 0
            self._coming = self.loop.call_later(self.body_seconds, self._look_at_body)
        elif self._in_head or not self._is_serving:
            self._coming = self.loop.call_later(self.head_seconds, self._look_at_head)

    def _expect_nothing(self) -> None:
        if self._coming is not None:
            self._coming.cancel()
            self._coming = None

    @property
    def _is_serving(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _look_at_head(self) -> None:
        if self._is_serving:  # the next request may come when this one has been answered
            self._expect_more()
        elif self._in_head:
            self._refuse(_late("headers", self.head_seconds))
        else:
            self.transport.close()

    def _look_at_body(self) -> None:
        if self.flow.read_paused or self._n_body >= _SLOWEST_BYTES_PER_SECOND * self.body_seconds:
            self._expect_more()
        else:
            self._refuse(_late("body", self.body_seconds))

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_at_answer(None)

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._going is not None:
            self._going.cancel()
            self._going = None

    def _look_at_answer(self, n_before: int | None) -> None:
        """Cuts the connection of a client that does not read its answer; comes again as long as it does."""
        n_left = self.transport.get_write_buffer_size()
        if n_before is not None and n_before - n_left < _SLOWEST_BYTES_PER_SECOND * self.body_seconds:
            self.transport.abort()
        else:
            self._going = self.loop.call_later(self.body_seconds, self._look_at_answer, n_left)

    def _refuse(self, error: ServiceError) -> None:
        """Answers, if no answer is under way, and hangs up: nobody knows where the next request begins."""
        request_id, path = secrets.token_hex(16), ""
        may_answer = not self._is_serving
        if self._in_body and self.cycle is self._served:
            may_answer = not self.cycle.response_started
            state, path = self.cycle.scope["state"], self.cycle.scope["path"]
            request_id = state.get("request_id", request_id)
            state[BROKEN_OFF] = error
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        fields = {"request_id": request_id, "status": error.status.value, "code": error.code}
        logger.info("a connection is closed for what came by it", extra=fields)
        if may_answer:
            body = document(error, path, request_id)
            head = (
                f"HTTP/1.1 {error.status.value} {error.status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def _late(part: str, seconds: float) -> ServiceError:
    detail = f"The {part} came too slowly: too little of it in {seconds:g} seconds. Send it again."
    return ServiceError("REQUEST_TIMEOUT", 408, detail)
