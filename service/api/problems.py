"""Every 4xx and 5xx as application/problem+json (RFC 9457)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.request_ids import request_id_of
from service.errors import FieldError, ServiceError, Unprocessable
from service.logs import redacted
from service.mixture import InvalidMixture

MEDIA_TYPE = "application/problem+json"
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_MOST_ERRORS = 20
_LONGEST_POINTER = 200
# Parts of pydantic's locations that name the variant of a union, not a key of the body.
_VARIANT_FIELDS = frozenset({"optimizer", "initialization", "selection"})


def install(app: FastAPI) -> None:
    """Renders whatever an endpoint raises."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(InvalidMixture, _invalid_mixture)
    app.add_exception_handler(RequestValidationError, _invalid_parameters)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, unforeseen)


def render(request: Request, error: ServiceError) -> Response:
    """Returns an error as a problem document."""
    request_id = request_id_of(request)
    request.state.problem_code = error.code
    headers = {"X-Request-Id": request_id, **error.headers}
    return Response(document(error, request.url.path, request_id), error.status, headers, MEDIA_TYPE)


def document(error: ServiceError, path: str, request_id: str) -> bytes:
    """Returns an error as the text of a problem document."""
    problem: dict[str, Any] = {
        "type": f"urn:mixserve:problem:{error.code.lower().replace('_', '-')}",
        "title": error.status.phrase,
        "status": error.status.value,
        "detail": error.detail,
        "instance": path,
        "code": error.code,
        "request_id": request_id,
    }
    if error.errors:
        problem["errors"] = [
            {"pointer": field.pointer[:_LONGEST_POINTER], "message": field.message}
            for field in error.errors[:_MOST_ERRORS]
        ]
    # A path may repeat a key that was put there by mistake.
    return redacted(to_json(problem).decode()).encode()


def field_errors(details: Iterable[ErrorDetails]) -> list[FieldError]:
    """Returns pydantic's errors as ours: places in the body as sent, and messages that repeat no input."""
    return [FieldError(_path(detail["loc"]), _message(detail)) for detail in details]


def _path(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    path: list[int | str] = []
    names_variant = False
    for part in location:
        is_tag = isinstance(part, str) and part.startswith("tag:")
        if not is_tag and not names_variant:
            path.append(part)
        names_variant = part in _VARIANT_FIELDS
    return tuple(path)


def _message(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    if detail["type"] == "union_tag_invalid":  # pydantic's own message repeats the tag that was sent
        return f"{context['discriminator'].strip(chr(39))} must be one of {context['expected_tags']}"
    return str(context["error"]) if detail["type"] == "value_error" else detail["msg"]


def _service_error(request: Request, error: Exception) -> Response:
    return render(request, cast(ServiceError, error))


def _invalid_mixture(request: Request, error: Exception) -> Response:
    place = FieldError(cast(InvalidMixture, error).path, str(error))
    return render(
        request, Unprocessable(f"The mixture is not valid: {error}.", [place], code="INVALID_MIXTURE")
    )


def _invalid_parameters(request: Request, error: Exception) -> Response:
    details = cast(RequestValidationError, error).errors()
    errors = [FieldError(tuple(detail["loc"][1:]), _message(detail)) for detail in details]
    names = ", ".join(sorted({str(detail["loc"][-1]) for detail in details}))[:_LONGEST_POINTER]
    return render(request, Unprocessable(f"These parameters are not valid: {names}.", errors))


def _http_exception(request: Request, error: Exception) -> Response:
    raised = cast(HTTPException, error)
    status = HTTPStatus(raised.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "There is nothing at this path; /docs lists what there is.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"This path does not take {request.method}; see its Allow header.",
    }
    code = status.phrase.upper().replace(" ", "_").replace("-", "_")
    detail = details.get(status, str(raised.detail))
    headers = {"Allow": _allowed(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else raised.headers
    return render(request, ServiceError(code, status, detail, headers=headers))


def _allowed(request: Request) -> str:
    """Returns what a path takes; the router itself names only the first of its endpoints there."""
    routes = request.app.router.routes
    scopes = [{**request.scope, "method": method} for method in _METHODS]
    matched = {
        scope["method"] for scope in scopes if any(route.matches(scope)[0] == Match.FULL for route in routes)
    }
    return ", ".join(sorted(matched | ({"HEAD"} if "GET" in matched else set())))


def unforeseen(request: Request, error: Exception) -> Response:
    """Returns what a client reads of a mistake of ours: its request id and nothing else."""
    del error  # the server logs it with its traceback; a client learns where to point
    detail = "Something went wrong inside the service; its log has the details under this request id."
    return render(request, ServiceError("INTERNAL", 500, detail))
