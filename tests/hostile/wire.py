"""Bytes to a server and back, without any library that would put them right."""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.serving import Server

_TIMEOUT_SECONDS = 60
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z]")


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """Yields a connection."""
    address = urlsplit(server.url)
    with socket.create_connection(
        (address.hostname or "", address.port or 0), timeout=_TIMEOUT_SECONDS
    ) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """Returns all that comes until the server closes the connection; nothing more where it resets it."""
    pieces = []
    while True:
        try:
            piece = connection.recv(1 << 16)
        except ConnectionError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


def said(server: Server, *pieces: bytes) -> bytes:
    """Returns what a server says to these bytes, until it closes the connection."""
    with connected(server) as connection:
        send(connection, pieces)
        return rest(connection)


def send(connection: socket.socket, pieces: Iterable[bytes]) -> int:
    """Returns how many bytes a server let itself be sent before it closed the connection."""
    n_sent = 0
    for piece in pieces:
        try:
            connection.sendall(piece)
        except ConnectionError:
            break
        n_sent += len(piece)
    return n_sent


def statuses(answer: bytes) -> list[int]:
    """Returns the status of each response in an answer."""
    return [int(status) for status in _STATUS_LINE.findall(answer)]


def request(
    path: bytes, *headers: bytes, method: bytes = b"GET", body: bytes = b"", version: bytes = b"HTTP/1.1"
) -> bytes:
    """Returns a request that asks for the connection to be closed after it."""
    lines = [method + b" " + path + b" " + version, b"Host: a", b"Connection: close", *headers, b"", body]
    return b"\r\n".join(lines)
