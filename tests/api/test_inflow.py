"""Bodies that come in slowly, or no further."""

import asyncio
import itertools
import tracemalloc
from typing import Any, BinaryIO

import numpy as np
import pytest
from fastapi import Request

from service.api.inflow import BROKEN_OFF, inflow
from service.api.reader_threads import ReaderThreads
from service.arriving import Arrived
from service.codecs.spooled import Spooled, spooled
from service.errors import ServiceError

LARGE = bytes(1 << 18)


class Sender:
    """A client that sends these pieces, and then, unless they are the whole, nothing until it is let go."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = iter(pieces)
        self.whole = False
        self.silent, self.gone = asyncio.Event(), asyncio.Event()
        self.read = False
        self.request = Request({"type": "http", "headers": [], "state": {}}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        piece = next(self.pieces, None)
        if piece is not None:
            return {"type": "http.request", "body": piece, "more_body": True}
        if self.whole:
            return {"type": "http.request", "body": b"", "more_body": False}
        self.silent.set()
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def read(sender: Sender, *sizes: int) -> list[bytes]:
    async with inflow(sender.request, limit_bytes=1 << 30) as body:
        sender.read = True
        return [await asyncio.to_thread(body.read, size) for size in sizes]


def test_little_is_not_read_until_it_is_all() -> None:
    async def steps() -> list[bytes]:
        sender = Sender(b"{", b"}")
        reading = asyncio.create_task(read(sender, 10))
        await sender.silent.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not sender.read
        sender.gone.set()
        return await reading

    with pytest.raises(ServiceError) as refused:
        asyncio.run(steps())
    assert (refused.value.status, refused.value.code) == (400, "CLIENT_DISCONNECTED")


def test_much_is_read_while_more_is_to_come() -> None:
    async def steps() -> list[bytes]:
        return await read(Sender(LARGE, LARGE), len(LARGE), len(LARGE))

    assert asyncio.run(steps()) == [LARGE, LARGE]


def test_a_body_is_read_in_any_sizes() -> None:
    body = np.random.default_rng(0).bytes(1 << 20)
    cuts = [0, 10, 11, 70_000, 70_900, 600_000, 1 << 20]
    pieces = [body[start:end] for start, end in itertools.pairwise(cuts)]
    sizes = [10, 2, 300_000, 250_000, 1 << 19]

    async def steps() -> list[bytes]:
        sender = Sender(*pieces)
        sender.whole = True
        return await read(sender, *sizes)

    answers = asyncio.run(steps())
    assert b"".join(answers) == body
    assert [len(answer) for answer in answers[:4]] == sizes[:4]


def test_a_body_of_a_megabyte_needs_no_file() -> None:
    body = np.random.default_rng(0).bytes(1 << 20)

    def no_file() -> BinaryIO:
        raise AssertionError("it is small")

    async def steps() -> Spooled:
        sender = Sender(body[:150_000], body[150_000:700_000], body[700_000:])
        sender.whole = True
        async with inflow(sender.request, limit_bytes=1 << 30) as inner:
            return await asyncio.to_thread(spooled, inner, no_file)

    assert asyncio.run(steps()).buffer == body


def test_what_a_connection_holds_of_a_body_is_little_more_than_its_bytes() -> None:
    tracemalloc.start()
    try:
        body = Arrived()
        for index in range(50_000):
            body += b"%03d" % (index % 1000)
        assert tracemalloc.get_traced_memory()[0] < 400_000
    finally:
        tracemalloc.stop()
    assert len(body) == 150_000
    assert bytes(body) == b"".join(b"%03d" % index for index in range(1000)) * 50


def test_tiny_pieces_take_little_more_than_their_bytes() -> None:
    async def steps() -> list[bytes]:
        sender = Sender()
        sender.pieces = (b"%03d" % (index % 1000) for index in range(50_000))
        sender.whole = True
        tracemalloc.start()
        try:
            answers = await read(sender, 1 << 20, 1 << 20)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
        return answers

    whole = b"".join(asyncio.run(steps()))
    assert whole == b"".join(b"%03d" % index for index in range(1000)) * 50


def test_a_body_that_the_server_gave_up_says_why() -> None:
    async def steps() -> None:
        sender = Sender(LARGE)
        sender.request.scope["state"][BROKEN_OFF] = ServiceError("REQUEST_TIMEOUT", 408, "Too slow.")
        asyncio.get_running_loop().call_later(0.01, sender.gone.set)
        await read(sender, len(LARGE), 1)

    with pytest.raises(ServiceError) as refused:
        asyncio.run(steps())
    assert (refused.value.status, refused.value.code) == (408, "REQUEST_TIMEOUT")


def test_who_keeps_a_thread_waiting_gives_way_to_who_waits_for_one() -> None:
    async def upload(threads: ReaderThreads, sender: Sender, n_reads: int) -> list[bytes]:
        async with inflow(sender.request, limit_bytes=1 << 30) as body:
            return await threads.run(body, lambda: [body.read(len(LARGE)) for _ in range(n_reads)])

    async def steps() -> None:
        threads = ReaderThreads(2, patience_seconds=0.1)
        slow = [asyncio.create_task(upload(threads, Sender(LARGE, b"{"), 2)) for _ in range(2)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in slow)  # nobody else wants their threads
        assert await upload(threads, Sender(LARGE, LARGE), 2) == [LARGE, LARGE]
        done, left = await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(left)) == (1, 1)  # one thread was wanted
        with pytest.raises(ServiceError) as refused:
            done.pop().result()
        assert (refused.value.status, refused.value.code) == (408, "REQUEST_TIMEOUT")
        for task in left:
            task.cancel()
        await asyncio.wait(left)

    asyncio.run(steps())
