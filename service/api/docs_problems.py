"""Which problems each operation can answer with, in the OpenAPI document."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from service.api.problems import MEDIA_TYPE
from service.schemas.service import Problem

_RETRY_AFTER = {
    "Retry-After": {"description": "whole seconds to wait", "schema": {"type": "integer", "minimum": 0}}
}
_LOCATION = {"Location": {"description": "the path of what was made", "schema": {"type": "string"}}}

# An example of each: its code, and what it says.
_SAID = {
    400: ("BAD_REQUEST", "This is no HTTP/1.1 request: its first line, a header or its body is malformed."),
    401: ("KEY_MISSING", "Send a key: Authorization: Bearer mixs_..."),
    403: ("SCOPE_MISSING", "This needs a key with the scope write; 'nightly batch' has read."),
    404: ("NOT_FOUND", "There is nothing at this path; /docs lists what there is."),
    406: ("NOT_ACCEPTABLE", "Accept must allow one of: application/json."),
    408: ("REQUEST_TIMEOUT", "The body came too slowly: too little of it in 60 seconds. Send it again."),
    409: ("CONFLICT", "This does not fit the state that the resource is in."),
    413: ("BODY_TOO_LARGE", "The body, decompressed, is larger than the 1073741824 bytes that are taken."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "Send the body with Content-Type: application/json."),
    422: ("INVALID_REQUEST", "This endpoint does not have some of the query parameters sent; it has none."),
    429: ("QUEUE_FULL", "10000 fits are queued already, as many as are taken; come back later."),
    431: ("HEADERS_TOO_LARGE", "The first line and the headers take 65536 bytes or more; send fewer."),
    500: ("INTERNAL", "Something went wrong inside the service; its log has the details."),
    501: ("PLOTS_NOT_INSTALLED", "This service has no matplotlib to draw with."),
    503: ("DATABASE_UNAVAILABLE", "The database does not answer; the same request may succeed soon."),
}  # fmt: skip


def declare_problems(document: dict[str, Any]) -> None:
    """Declares on every operation what it may refuse, and the headers that go with an answer."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
            for status in sorted({*_statuses(path, operation), *_empty(answers)}):
                if "content" not in answers.get(str(status), {}):
                    answers[str(status)] = _answer(status, path)
            for made in answers.keys() & {"201", "202"}:
                answers[made].setdefault("headers", {}).update(_LOCATION)
            operation["responses"] = dict(sorted(answers.items()))


def _statuses(path: str, operation: dict[str, Any]) -> Iterator[int]:
    """What follows from an operation's form; what is its own stands at its endpoint."""
    yield from (400, 406, 422, 431, 500, 503)
    if "requestBody" in operation:
        yield from (408, 413, 415)
    if "security" in operation:
        yield from (401, 403)
    if "{" in path:
        yield 404
    if any(parameter["name"].lower() == "idempotency-key" for parameter in operation.get("parameters", ())):
        yield 409


def _empty(answers: dict[str, Any]) -> list[int]:
    """The problems that an endpoint names by their status alone."""
    return [int(status) for status, answer in answers.items() if status >= "400" and "content" not in answer]


def _answer(status: int, path: str) -> dict[str, Any]:
    code, detail = _SAID[status]
    phrase = HTTPStatus(status).phrase
    problem = {
        "type": f"urn:mixserve:problem:{code.lower().replace('_', '-')}",
        "title": phrase,
        "status": status,
        "detail": detail,
        "instance": path,
        "code": code,
        "request_id": "fef0d07917492c400f42250353930af0",
    }
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        problem["errors"] = [{"pointer": "/no_such", "message": "there is no such parameter"}]
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    answer: dict[str, Any] = {
        "description": phrase,
        "content": {MEDIA_TYPE: {"schema": schema, "example": problem}},
    }
    return answer | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})
