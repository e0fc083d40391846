"""Creating things once: what a POST with an Idempotency-Key does when it comes again."""

import hashlib
import re
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from service.api.answers import JSON, JsonAnswer
from service.api.bodies import Raw
from service.api.services import Use
from service.errors import FieldError, Unprocessable
from service.storage import idempotency
from service.storage.database import Session
from service.storage.idempotency import StoredAnswer
from service.storage.identifiers import new_id

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


def _creation(
    request: Request,
    body: Raw,
    services: Use,
    idempotency_key: Annotated[
        str | None, Header(description="1 to 255 characters; the same key and body get the same answer again")
    ] = None,
) -> Iterator[Creation]:
    if idempotency_key is None:
        yield Creation(None, "")
        return
    if not _KEY.fullmatch(idempotency_key):
        message = "must be 1 to 255 printable ASCII characters"
        raise Unprocessable(f"Idempotency-Key {message}.", [FieldError(("Idempotency-Key",), message)])
    holder = new_id("idk")
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(body)
    kept_seconds = services.settings.idempotency_seconds
    answer = idempotency.begin(services.database, idempotency_key, digest.hexdigest(), holder, kept_seconds)
    if answer is not None:
        raise Replayed(answer)
    try:
        with services.upkeep.serving(idempotency_key, holder):
            yield Creation(idempotency_key, holder)
    except BaseException:
        idempotency.abandon(services.database, idempotency_key, holder)
        raise


Once = Annotated[Creation, Depends(_creation)]


def replay(request: Request, error: Exception) -> Response:
    """Renders `Replayed`."""
    del request
    assert isinstance(error, Replayed)  # noqa: S101 - registered for it alone
    return error.response
