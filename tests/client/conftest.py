"""A service with a worker, and a server that misbehaves as told."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def blobs() -> NDArray[np.float64]:
    """(200, 2) points in two groups."""
    generator = np.random.default_rng(0)
    return np.vstack([generator.normal(0, 1, (120, 2)), generator.normal(8, 1, (80, 2))])


@dataclass
class Script:
    """What a server answers, one request after the other: status, headers and body; None hangs up."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes] | None] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that answers by its script, and remembers what it was asked."""
    told = Script()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            told.seen.append(
                {"method": self.command, "path": self.path, "body": body} | dict(self.headers.items())
            )
            answer = told.answers.pop(0)
            if answer is None:
                self.close_connection = True
                return
            status, headers, content = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = "close" in headers.get("Connection", "")

        do_GET = do_POST = do_DELETE = answer  # noqa: N815 - named by the library

        def log_message(self, *arguments: Any) -> None:
            del arguments

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
    thread.start()
    told.url = f"http://127.0.0.1:{listening.server_port}"
    yield told
    listening.shutdown()
    thread.join()
    listening.server_close()
