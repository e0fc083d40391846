"""Sends one HTTP request again and again over kept connections, at little cost to the machine.

One thread, sockets and select: an HTTP client library would take more processor time than the
server does. Answers must carry Content-Length and a status of success.
"""

from __future__ import annotations

import json
import random
import select
import socket
import time
from collections import deque
from urllib.parse import urlsplit

_RECEIVED_AT_ONCE = 1 << 16
_PATIENCE_SECONDS = 30.0


def post(url: str, body: bytes, media_type: str = "application/json") -> bytes:
    """A POST request as it goes over the wire."""
    parts = urlsplit(url)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def post_points(url: str, points: list[list[float]]) -> bytes:
    """A POST request of points as JSON."""
    return post(url, json.dumps({"points": points}).encode())


class _Connections:
    """Connections to one server, each with at most one request under way."""

    def __init__(self, url: str, count: int) -> None:
        parts = urlsplit(url)
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        for _ in range(count):
            connection = socket.create_connection((parts.hostname or "", parts.port or 80))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets[connection.fileno()] = connection
            self._received[connection.fileno()] = b""

    def numbers(self) -> list[int]:
        return list(self._sockets)

    def send(self, number: int, request: bytes) -> None:
        self._sockets[number].sendall(request)

    def answered(self, timeout_seconds: float) -> list[int]:
        """The connections whose answers have become whole, waiting for the first bytes at most so long."""
        done = []
        # Not epoll, whose time-outs are whole milliseconds.
        for number in select.select(list(self._sockets), (), (), max(0.0, timeout_seconds))[0]:
            piece = self._sockets[number].recv(_RECEIVED_AT_ONCE)
            if not piece:
                raise SystemExit("the server closed a connection")
            received = self._received[number] + piece
            whole = _is_whole(received)
            self._received[number] = b"" if whole else received
            if whole:
                done.append(number)
        return done

    def close(self) -> None:
        for connection in self._sockets.values():
            connection.close()


def _is_whole(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    if not head.startswith(b"HTTP/1.1 20"):
        raise SystemExit(received.decode(errors="replace")[:1000])
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    return len(body) >= int(length)


def closed_loop(url: str, request: bytes, *, n_connections: int, seconds: float) -> float:
    """Answers per second when every connection sends its next request as soon as it has its answer."""
    connections = _Connections(url, n_connections)
    n_answers = 0
    begun = time.perf_counter()
    for number in connections.numbers():
        connections.send(number, request)
    while (elapsed := time.perf_counter() - begun) < seconds:
        for number in connections.answered(seconds - elapsed):
            n_answers += 1
            connections.send(number, request)
    connections.close()
    return n_answers / elapsed


def open_loop(
    url: str, request: bytes, *, rate: float, seconds: float, n_connections: int = 64, seed: int = 0
) -> list[float]:
    """Latencies in seconds at a fixed rate of arrivals, each from the moment its request was due.

    Arrivals are a Poisson process whose times are settled beforehand. A request that is due while all
    connections wait for answers is sent later, and its wait counts: a slow server cannot slow the clients.
    """
    drawn = random.Random(seed)
    due, at = deque[float](), 0.0
    while (at := at + drawn.expovariate(rate)) < seconds:
        due.append(at)
    connections = _Connections(url, n_connections)
    idle, under_way = connections.numbers(), dict[int, float]()
    latencies: list[float] = []
    begun = time.perf_counter()
    while due or under_way:
        now = time.perf_counter() - begun
        if now > seconds + _PATIENCE_SECONDS:
            raise SystemExit(f"{len(due) + len(under_way)} requests were not answered")
        while due and idle and due[0] <= now:
            number = idle.pop()
            under_way[number] = due.popleft()
            connections.send(number, request)
        pause = due[0] - now if due and idle else _PATIENCE_SECONDS
        for number in connections.answered(pause):
            latencies.append(time.perf_counter() - begun - under_way.pop(number))
            idle.append(number)
    connections.close()
    return latencies


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
