"""What can go wrong in a way that a client should read about. The API renders these as problem+json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class FieldError:
    """One place in a body that was wrong.

    Attributes:
        path: Keys and indices from the body's top to the place.
        message: What is wrong there; never repeats the value that was sent.
    """

    path: Path
    message: str

    @property
    def pointer(self) -> str:
        """The path as a JSON pointer (RFC 6901)."""
        return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in self.path)


class ServiceError(Exception):
    """A refusal with a stable code, an HTTP status and a sentence that says what to do."""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = HTTPStatus(status)
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class NotFound(ServiceError):
    """There is no such thing; it may have been deleted."""

    def __init__(self, noun: str, identifier: str) -> None:
        super().__init__(
            f"{noun.upper()}_NOT_FOUND",
            404,
            f"There is no {noun} {identifier[:80]!r}; it may have been deleted.",
        )


class Conflict(ServiceError):
    """The request does not fit the state that the resource is in."""

    def __init__(self, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code, 409, detail, headers=headers)


class Unprocessable(ServiceError):
    """The body was understood and cannot be accepted."""

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), *, code: str = "INVALID_REQUEST"
    ) -> None:
        super().__init__(code, 422, detail, errors=errors)


class LimitReached(ServiceError):
    """The owner has as much as it may have; RateLimit headers say of what."""

    def __init__(self, code: str, detail: str, policy: str, limit: float, retry_after_seconds: int) -> None:
        super().__init__(
            code,
            429,
            detail,
            headers={
                "Retry-After": str(retry_after_seconds),
                "RateLimit-Policy": f'"{policy}";q={limit:.0f}',
                "RateLimit": f'"{policy}";r=0;t={retry_after_seconds}',
            },
        )


class Unavailable(ServiceError):
    """Something that the service stands on does not answer; the same request may succeed soon."""

    def __init__(self, code: str, detail: str, *, retry_after_seconds: int = 2) -> None:
        super().__init__(code, 503, detail, headers={"Retry-After": str(retry_after_seconds)})
