"""The HTTP server's part in admission: it turns away who comes too many, at next to no cost.

Of three times what can be answered two thirds end here, so what one of them costs decides how many others are
answered. Making a request of its bytes and a task of the request, to answer it with a refusal, would take a
third of the time of an answer to a small question.
"""

import itertools
import re
import secrets
from typing import Any, cast

from starlette.types import Scope
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.api.admission import Admission, overloaded
from service.api.envelope import SAFE_HEADERS
from service.api.problems import MEDIA_TYPE, document
from service.api.request_ids import request_id_from
from service.protocol import Protocol

_REFUSAL = overloaded()
_LINES = b"".join(
    b"%s: %s\r\n" % (name, value)
    for name, value in (
        (b"Content-Type", MEDIA_TYPE.encode()),
        *((name.encode(), value.encode()) for name, value in _REFUSAL.headers.items()),
        *SAFE_HEADERS,
    )
)
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\n%sContent-Length: %%d\r\nX-Request-Id: %%s\r\n"
    b"Connection: %%s\r\n\r\n"
) % _LINES
_BODY = document(_REFUSAL, "%s", "%s")
_N_BODY = len(_BODY % (b"", b""))

_METHODS = (b"GET", b"POST", b"DELETE")
# A path that JSON would write as it is, and that is no place for a key put there by mistake.
_PLAIN_PATH = re.compile(rb"/(?!.*mixs_)[\w/.~-]*", re.ASCII)
_UNUSUAL = re.compile(
    rb"\n(?:transfer-encoding|expect|upgrade|connection:[^\n]*close|x-request-id)", re.IGNORECASE
)
_LENGTH = re.compile(rb"\ncontent-length: *([0-9]{1,9})\r", re.IGNORECASE)


def admitting(base: type[Protocol], admission: Admission) -> type[Protocol]:
    """Returns a protocol that lets in whom `admission` does, and else is as another one."""
    # Ids of those who get no further: what is random in them is drawn once.
    first, numbers = secrets.token_hex(10), itertools.count()

    class Admitting(base):  # type: ignore[valid-type, misc]
        @override
        def data_received(self, data: bytes) -> None:
            if admission.is_crowded and self.is_between_requests:
                path = _path_of_whole(data)
                if path is not None and admission.turns_away(path.decode()):
                    request_id = f"{first}{next(numbers):012x}".encode()
                    head = _HEAD % (_N_BODY + len(path) + len(request_id), request_id, b"keep-alive")
                    self.transport.write(head + _BODY % (path, request_id))
                    self._expect_nothing()
                    self.on_response_complete()
                    return
            super().data_received(data)

        @override
        def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
            scope = cast(Scope, cycle.scope)
            if admission.turns_away(scope["path"]):
                self.serves(cycle)
                _turn_away(cycle)
            else:
                admission.let_in(scope["state"])
                super()._start_asgi_task(cycle, app)

    return Admitting


def _path_of_whole(data: bytes) -> bytes | None:
    """Returns the path of a request whose bytes these are, all of them; None where it is not plain to see."""
    line, _, headers = data.partition(b"\r\n")
    method, _, target = line.partition(b" ")
    target, _, version = target.partition(b" ")
    path = target.partition(b"?")[0]
    if method not in _METHODS or version != b"HTTP/1.1" or not _PLAIN_PATH.fullmatch(path):
        return None
    end = headers.find(b"\r\n\r\n") + 2
    if end < 2 or _UNUSUAL.search(data, 0, len(line) + end):
        return None
    lengths = _LENGTH.findall(data, 0, len(line) + 2 + end)
    n_body = len(headers) - end - 2
    whole = [b"%d" % n_body] if n_body or lengths else []
    return path if lengths == whole else None


def _turn_away(cycle: RequestResponseCycle) -> None:
    """Answers a request of which nothing has been made but its head."""
    request_id = request_id_from(cycle.scope["headers"])
    body = document(_REFUSAL, cycle.scope["path"], request_id)
    # One that waits to be told to send its body might send it, or the next request.
    ends = not cycle.keep_alive or cycle.waiting_for_100_continue
    head = _HEAD % (len(body), request_id.encode(), b"close" if ends else b"keep-alive")
    cycle.transport.write(head + (b"" if cycle.scope["method"] == "HEAD" else body))
    cycle.response_started = cycle.response_complete = True
    if ends:
        cycle.transport.close()
    cycle.on_response()
