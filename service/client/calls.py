"""Calls of the API: what is sent, again and again if need be, and how its answer is read."""

import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from service.client.problems import ServiceUnreachable, problem_of
from service.client.steps import Emit, Items, Send, Sleep, Steps

T = TypeVar("T")
Model = TypeVar("Model", bound=BaseModel)

_RETRIED = (429, 502, 503, 504)
_LONGEST_BACKOFF_SECONDS = 20.0
_LONGEST_RETRY_AFTER_SECONDS = 300.0
_NOT_FOUND, _CONFLICT = 404, 409


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call: a request, and what reads its answer."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None  # an NPY file


def path(*parts: str) -> str:
    """Returns a path under /v1 from its parts, which may hold anything."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def reading(model: type[Model]) -> Callable[[httpx.Response], Model]:
    """Returns what reads an answer into a model; fields that a newer service has added are left out."""
    return lambda response: model.model_validate_json(response.content, extra="ignore")


def nothing(response: httpx.Response) -> None:
    """Reads an answer without content."""
    del response


def once() -> dict[str, str]:
    """Returns the header that lets a call which creates something be sent again without making it twice."""
    return {"Idempotency-Key": uuid.uuid4().hex}


class Caller:
    """Builds requests on an httpx client, sends them, and tries again where that helps.

    Args:
        http: An `httpx.Client` or `httpx.AsyncClient`, with the service's address.
        retries: How often a call is tried again.
        backoff_seconds: About how long the first pause is; the next are twice as long each, up to 20 s.
    """

    def __init__(self, http: httpx.Client | httpx.AsyncClient, retries: int, backoff_seconds: float) -> None:
        self.http = http
        self.retries = retries
        self._backoff_seconds = backoff_seconds

    def request(self, call: Call[Any], **options: Any) -> httpx.Request:
        """Returns the request of a call."""
        params = {name: value for name, value in call.params.items() if value is not None}
        headers = dict(call.headers) | ({} if call.content is None else {"Content-Type": "application/x-npy"})
        return self.http.build_request(
            call.method,
            call.path,
            params=params,
            headers=headers,
            json=call.json,
            content=call.content,
            **options,
        )

    def answer(self, call: Call[T], **options: Any) -> Steps[T]:
        """Returns the answer to a call.

        Raises:
            Problem: The service refused it, in the class of its kind.
            ServiceUnreachable: No answer came.
        """
        lost = False
        for pause in self.pauses():
            try:
                response: httpx.Response = yield Send(self.request(call, **options))
            except httpx.TransportError as error:
                lost = True
                if pause is None:
                    raise unreachable(self.http, str(error)) from error
                yield Sleep(pause)
                continue
            if response.is_success:
                return call.read(response)
            if lost and call.method == "DELETE" and response.status_code == _NOT_FOUND:
                return call.read(response)  # the answer that was lost had deleted it
            wait = again_after(response)
            if pause is None:
                raise problem_of(response)
            yield Sleep(wait + pause)
        raise AssertionError  # the last pause is None

    def pauses(self) -> Iterator[float | None]:
        """Yields the pause before each further try, in seconds; None when there is none to come.

        Each lies anywhere below its bound, so that clients which failed together do not come back together.
        """
        for attempt in range(self.retries):
            bound = min(_LONGEST_BACKOFF_SECONDS, self._backoff_seconds * 2**attempt)
            yield random.uniform(0, bound)  # noqa: S311 - nothing secret hangs on it
        yield None

    def pages(self, collection: str, item: Callable[[dict[str, Any]], T], **params: Any) -> Items[T]:
        """Emits every item of a collection, newest first, asking for a page when the last is used up."""
        token: str | None = None
        while True:
            asked = params if token is None else params | {"page_token": token}
            page = yield from self.answer(Call("GET", path(collection), httpx.Response.json, asked))
            for each in page["items"]:
                yield Emit(item(each))
            token = page.get("next_page_token")
            if token is None:
                return


def again_after(response: httpx.Response) -> float:
    """Returns the seconds after which it is worth while to ask again; 0 after a success.

    Raises:
        Problem: It is not; the same request would be refused again.
    """
    if response.is_success:
        return 0.0
    text = response.headers.get("retry-after", "")
    says_when = text.isascii() and text.isdigit()
    # A key whose first call is still being served is a conflict that says when to come back.
    if response.status_code in _RETRIED or (response.status_code == _CONFLICT and says_when):
        return min(float(text), _LONGEST_RETRY_AFTER_SECONDS) if says_when else 0.0
    raise problem_of(response)


def unreachable(http: httpx.Client | httpx.AsyncClient, reason: str) -> ServiceUnreachable:
    """Returns what to raise when no answer came."""
    return ServiceUnreachable(
        f"the service at {http.base_url} does not answer: {reason or 'no reason given'}"
    )
