"""Creating things once: what a POST with an Idempotency-Key does when it comes again."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.answers import JSON, JsonAnswer
from service.api.bodies import INLINE_BYTES, Raw
from service.api.inflow import Digest
from service.api.services import Services
from service.codecs.spooled import Spooled
from service.errors import FieldError, Unprocessable
from service.storage import idempotency
from service.storage.database import Session
from service.storage.idempotency import StoredAnswer
from service.storage.identifiers import new_id

_PIECE_BYTES = 1 << 20
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Replayed(Exception):
    """The key's first call has been answered; this is the answer again."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__()
        self.response = Response(
            answer.body, answer.status, {**answer.headers, "Idempotent-Replayed": "true"}, JSON
        )


class Creation:
    """One call that creates something, and its key if it has one."""

    def __init__(self, key: str | None, holder: str) -> None:
        self._key = key
        self._holder = holder

    def created(self, session: Session, content: dict[str, Any], path: str, status: int = 201) -> Response:
        """Returns the answer, kept for the key in the transaction that creates what it tells of."""
        response = JsonAnswer(content, status, {"Location": path})
        if self._key is not None:
            answer = StoredAnswer(status, {"Location": path}, bytes(response.body))
            idempotency.complete(session, self._key, self._holder, answer)
        return response


def request_digest(request: Request) -> Digest:
    """Returns what names a request, once its body has been added."""
    return hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())


async def checked_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 characters; the same key and body get the same answer again",
            json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
        ),
    ] = None,
) -> str | None:
    """Returns the key that the request came with.

    Raises:
        Unprocessable: It is not one.
    """
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        message = "must be 1 to 255 printable ASCII characters"
        raise Unprocessable(f"Idempotency-Key {message}.", [FieldError(("Idempotency-Key",), message)])
    return idempotency_key


Key = Annotated[str | None, Depends(checked_key)]


@contextmanager
def once(services: Services, key: str | None, digest: Digest | None) -> Iterator[Creation]:
    """Yields what answers this call, and its later repetitions; freed again if the block creates nothing.

    Args:
        services: Where keys are kept.
        key: The request's, if it has one.
        digest: Of the whole request, if it has a key.

    Raises:
        Replayed: The key has got its answer.
        ServiceError: The key was used for another request (422) or is in use (409).
    """
    if key is None or digest is None:
        yield Creation(None, "")
        return
    holder = new_id("idk")
    kept_seconds = services.settings.idempotency_seconds
    answer = idempotency.begin(services.database, key, digest.hexdigest(), holder, kept_seconds)
    if answer is not None:
        raise Replayed(answer)
    try:
        with services.upkeep.serving(key, holder):
            yield Creation(key, holder)
    except BaseException:
        idempotency.abandon(services.database, key, holder)
        raise


async def whole_digest(request: Request, body: Raw, key: Key) -> Digest | None:
    """Returns what names a request with its body; None without a key, which alone asks for it."""
    if key is None:
        return None
    digest = request_digest(request)
    if len(body.buffer) <= INLINE_BYTES:
        digest.update(body.buffer[:])
    else:
        await run_in_threadpool(_take_in, digest, body)
    return digest


def _take_in(digest: Digest, body: Spooled) -> None:
    for start in range(0, len(body.buffer), _PIECE_BYTES):
        digest.update(body.buffer[start : start + _PIECE_BYTES])
        body.seen(_PIECE_BYTES)


WholeDigest = Annotated[Digest | None, Depends(whole_digest)]


def replay(request: Request, error: Exception) -> Response:
    """Renders `Replayed`."""
    del request
    assert isinstance(error, Replayed)  # noqa: S101 - registered for it alone
    return error.response
