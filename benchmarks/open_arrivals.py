"""Sends requests when they are due, however many still wait for answers: an open model of arrivals.

One thread, sockets and epoll, since it has to send several times what the server can answer. A request that
is due takes a connection that waits for nothing, or opens one; where all there may be wait, it is sent late,
and its latency counts from when it was due. What would be sent much too late is not sent at all, and said to
be `UNSENT`: one process can send only so many.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple
from urllib.parse import urlsplit

_RECEIVED_AT_ONCE = 1 << 16
_PATIENCE_SECONDS = 10.0
_LATEST_SECONDS = 0.02
# A sender that is late sends no more than these at once, or what arrives would be bursts with pauses between.
_SENT_AT_ONCE = 8

UNSENT = -1
"""The status of a request that was left out, for which the server is not to blame."""


class Due(NamedTuple):
    """A request and when it is due, in seconds from the beginning."""

    at: float
    kind: str
    request: bytes


@dataclass(frozen=True)
class Answer:
    """What became of a request; 0 is the status of one that was sent and got no answer.

    Attributes:
        due: When it was due, in seconds from the beginning.
        late_seconds: How much later it was sent, for which the server is not to blame.
        seconds: From when it was due to the last byte of its answer.
    """

    kind: str
    status: int
    due: float
    late_seconds: float
    seconds: float


def poisson(rate: float, seconds: float, kind: str, request: bytes, seed: int = 0) -> list[Due]:
    """Returns arrivals at a rate, for so long, that know nothing of one another."""
    drawn, due, at = random.Random(seed), [], 0.0
    while (at := at + drawn.expovariate(rate)) < seconds:
        due.append(Due(at, kind, request))
    return due


def regular(every_seconds: float, seconds: float, kind: str, request: bytes) -> list[Due]:
    """Returns arrivals one after another at equal distances."""
    return [Due(n * every_seconds, kind, request) for n in range(round(seconds / every_seconds))]


def send(url: str, *arrivals: Iterable[Due], max_connections: int = 1000) -> list[Answer]:
    """Returns what became of requests, in the order in which that was known."""
    sender = _Sender(url, max_connections)
    try:
        return sender.run(list(merge(*arrivals)))
    finally:
        sender.close()


class _Connection:
    __slots__ = ("due", "received", "sent", "socket")

    def __init__(self, opened: socket.socket) -> None:
        self.socket = opened
        self.received = b""
        self.due: Due | None = None
        self.sent = 0.0


class _Sender:
    def __init__(self, url: str, max_connections: int) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._max_connections = max_connections
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)
        self._answers: list[Answer] = []
        self._begun = 0.0

    def run(self, due: Sequence[Due]) -> list[Answer]:
        self._begun = time.perf_counter()
        sent, n_due = 0, len(due)
        deadline = due[-1].at + _PATIENCE_SECONDS
        while len(self._answers) < n_due:
            now = time.perf_counter() - self._begun
            if now > deadline:
                break
            left = _SENT_AT_ONCE
            while left and sent < n_due and due[sent].at <= now and self._has_room(due[sent]):
                if now - due[sent].at > _LATEST_SECONDS:
                    self._leave_out(due[sent])
                else:
                    self._send(due[sent])
                    left -= 1
                sent += 1
                now = time.perf_counter() - self._begun
            pause = due[sent].at - now if sent < n_due and self._has_room(due[sent]) else 0.05
            for number, _ in self._epoll.poll(min(0.05, max(0.0, pause))):
                self._receive(self._connections[number])
        for connection in [one for one in self._connections.values() if one.due is not None]:
            self._ended(connection, 0)
        for one in due[sent:]:
            self._leave_out(one)
        return self._answers

    def _leave_out(self, due: Due) -> None:
        self._answers.append(Answer(due.kind, UNSENT, due.at, 0.0, 0.0))

    def _has_room(self, due: Due) -> bool:
        return bool(self._idle[due.kind]) or len(self._connections) < self._max_connections

    def _send(self, due: Due) -> None:
        idle = self._idle[due.kind]  # each kind has its own, so that one that opens none waits for none
        connection = idle.pop() if idle else self._opened()
        connection.due, connection.sent = due, time.perf_counter() - self._begun
        try:
            connection.socket.send(due.request)
        except OSError:
            self._drop(connection)

    def _opened(self) -> _Connection:
        opened = socket.create_connection(self._address)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        self._epoll.register(opened.fileno(), select.EPOLLIN)
        connection = self._connections[opened.fileno()] = _Connection(opened)
        return connection

    def _receive(self, connection: _Connection) -> None:
        try:
            piece = connection.socket.recv(_RECEIVED_AT_ONCE)
        except OSError:
            piece = b""
        if not piece:
            self._drop(connection)
            return
        received = connection.received = connection.received + piece
        head, separator, body = received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        if len(body) >= int(length):
            connection.received = b""
            due = connection.due
            self._ended(connection, int(head[9:12]))
            if due is not None:
                self._idle[due.kind].append(connection)

    def _ended(self, connection: _Connection, status: int) -> None:
        due, now = connection.due, time.perf_counter() - self._begun
        if due is not None:
            self._answers.append(Answer(due.kind, status, due.at, connection.sent - due.at, now - due.at))
        connection.due = None

    def _drop(self, connection: _Connection) -> None:
        self._ended(connection, 0)
        number = connection.socket.fileno()
        self._epoll.unregister(number)
        del self._connections[number]
        connection.socket.close()
        for idle in self._idle.values():
            if connection in idle:
                idle.remove(connection)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._epoll.close()
