"""What a call can end in instead of an answer: an exception class for each kind of problem."""

from typing import Any, NamedTuple

import httpx

from service.schemas.fit import Fit


class MixserveError(Exception):
    """Anything that the client raises of its own."""


class ServiceUnreachable(MixserveError):
    """No answer came, however often the client asked."""


class FitUnsuccessful(MixserveError):
    """A fit ended without a mixture.

    Attributes:
        fit: The fit as it ended.
        code: `FIT_COLLAPSED`, `OUT_OF_MEMORY`, `TIMED_OUT` ..., `CANCELLED` for one that was cancelled.
    """

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.code = fit.error.code if fit.error else fit.status.upper()
        super().__init__(f"{fit.id}: {fit.error.message if fit.error else f'the fit was {fit.status}'}")


class Place(NamedTuple):
    """One place in a request that was wrong: a JSON pointer into its body, or a parameter's name."""

    pointer: str
    message: str


class Problem(MixserveError):
    """The service refused a request, or could not do it.

    Attributes:
        status: The HTTP status.
        code: Stable from release to release, UPPER_SNAKE.
        detail: What was wrong with which value, and what to do instead.
        errors: The places in the request that were wrong.
        request_id: Finds the request in the service's log.
    """

    def __init__(self, status: int, content: dict[str, Any], request_id: str | None) -> None:
        self.status = status
        self.code = str(content.get("code", f"HTTP_{status}"))
        self.detail = str(content.get("detail", "the answer does not say why"))
        self.errors = [Place(place["pointer"], place["message"]) for place in content.get("errors") or ()]
        self.request_id: str | None = content.get("request_id", request_id)
        super().__init__(f"{self.detail} [{self.code}, request {self.request_id}]")

    @property
    def pointers(self) -> list[str]:
        """The places in the request that were wrong."""
        return [place.pointer for place in self.errors]


class BadRequest(Problem):
    """400: the request could not be read."""


class Unauthorized(Problem):
    """401: no key was given, or one that is not known."""


class Forbidden(Problem):
    """403: the key does not allow this."""


class NotFound(Problem):
    """404: there is no such thing; it may have been deleted."""


class NotAcceptable(Problem):
    """406: the answer cannot be had in the media type asked for."""


class Conflict(Problem):
    """409: it does not fit the state that the thing is in."""


class TooLarge(Problem):
    """413: the body is larger than what is taken."""


class UnsupportedMediaType(Problem):
    """415: the body's media type is not taken."""


class Unprocessable(Problem, ValueError):
    """422: the request was understood and cannot be accepted; `errors` says where."""


class TooManyRequests(Problem):
    """429: the service is busy; this was so after several tries."""


class InternalError(Problem):
    """500: a mistake of the service; its log has more under the request id."""


class Unavailable(Problem):
    """503: something that the service stands on does not answer; this was so after several tries."""


_KINDS: dict[int, type[Problem]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    409: Conflict,
    413: TooLarge,
    415: UnsupportedMediaType,
    422: Unprocessable,
    429: TooManyRequests,
    500: InternalError,
    503: Unavailable,
}


def problem_of(response: httpx.Response) -> Problem:
    """Returns what an answer that has been read says went wrong; something between may have said it."""
    try:
        content = response.json()
    except ValueError:
        content = {}
    if not isinstance(content, dict):
        content = {}
    kind = _KINDS.get(response.status_code, Problem)
    return kind(response.status_code, content, response.headers.get("x-request-id"))
