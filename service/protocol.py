"""What the HTTP server says to bytes that are no request: a problem document, as everywhere."""

import json
import secrets

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_PROBLEM = {
    "type": "urn:mixserve:problem:bad-request",
    "title": "Bad Request",
    "status": 400,
    "detail": "This is no HTTP/1.1 request: its first line, its method or a header is malformed.",
    "instance": "",
    "code": "BAD_REQUEST",
}


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 by httptools, with refusals of ours."""

    @override
    def send_400_response(self, msg: str) -> None:
        """Answers and hangs up: where the next request would begin is not known."""
        del msg  # it says less
        request_id = secrets.token_hex(16)
        body = json.dumps(_PROBLEM | {"request_id": request_id}, separators=(",", ":")).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
