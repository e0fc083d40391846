"""Who is there: every request comes by here before anything of the service sees it."""

import re
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import render
from service.api.request_limit import Rate, RequestLimit
from service.errors import ServiceError
from service.settings import Settings
from service.storage import keys
from service.storage.database import Database
from service.storage.keys import KeyHolder
from service.storage.owners import LOCAL, acting_for

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/livez", "/readyz"})
"""What anybody may see: the pages, which hold nothing of anybody's, and whether the service is well."""

_OPEN_FOLDER = "/static/"
_ADMIN_PATHS = frozenset({"/metrics"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
QUESTIONS = "questions"
"""The tag of operations that change nothing although they are POSTs."""

_SCHEME = "key"
_NOBODY = ""
_BEARER = re.compile(r"Bearer +([!-~]+) *", re.IGNORECASE)


class Guard:
    """ASGI middleware that has each request act for the owner of its key, or refuses it."""

    def __init__(
        self, app: ASGIApp, settings: Settings, database: Database, routes: Iterable[BaseRoute]
    ) -> None:
        self._app = app
        self._asks = settings.auth == "keys"
        self._database = database
        self._limit = RequestLimit(database, settings.owner_requests_per_second, settings.owner_request_burst)
        self._questions = [
            route.path_regex for route in routes if isinstance(route, APIRoute) and QUESTIONS in route.tags
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            owner, rate = await self._caller(scope)
            if rate is not None:
                send = _with_headers(send, await self._limit.take(owner, rate))
        except ServiceError as error:
            await render(Request(scope), error)(scope, receive, send)
            return
        with acting_for(owner):
            await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> tuple[str, Rate | None]:
        """Returns whom a request is of, and how many that one may make."""
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(_OPEN_FOLDER):
            return _NOBODY, None
        if not self._asks:
            return LOCAL, self._limit.rate()
        holder = await self._holder(scope)
        scope.setdefault("state", {})["key_holder"] = holder
        wanted = self._wanted(scope)
        if wanted not in holder.scopes:
            has = ", ".join(sorted(holder.scopes))
            raise _refused(
                "SCOPE_MISSING",
                f"This needs a key with the scope {wanted}; {holder.name!r} has {has}.",
                f'error="insufficient_scope", scope="{wanted}"',
                status=403,
            )
        return holder.owner, self._limit.rate(holder.requests_per_second, holder.request_burst)

    async def _holder(self, scope: Scope) -> KeyHolder:
        given = Headers(scope=scope).getlist("authorization")
        if not given:
            raise _refused("KEY_MISSING", "Send a key: Authorization: Bearer mixs_...")
        match = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise _invalid("KEY_MALFORMED", "Send one header of the form Authorization: Bearer mixs_...")
        if not keys.is_well_formed(match[1]):
            raise _invalid(
                "KEY_MALFORMED", "This is not a key as it was made: a character is wrong or missing."
            )
        holder = await run_in_threadpool(keys.holder, self._database, match[1])
        if holder is None:
            raise _invalid("KEY_UNKNOWN", "This service does not know this key; perhaps it is for another.")
        if holder.revoked:
            raise _invalid("KEY_REVOKED", f"The key {holder.name!r} has been revoked; ask for another.")
        if holder.expired:
            raise _invalid("KEY_EXPIRED", f"The key {holder.name!r} has expired; ask for another.")
        return holder

    def _wanted(self, scope: Scope) -> str:
        path: str = scope["path"]
        return _scope_of(path, scope["method"], any(pattern.match(path) for pattern in self._questions))


def describe(document: dict[str, Any], settings: Settings) -> None:
    """Says in an OpenAPI document which scope each operation wants, and that one may be beyond a limit."""
    asks_for_keys = settings.auth == "keys"
    if asks_for_keys:
        scheme = {"type": "http", "scheme": "bearer", "description": "A key: mixserve keys create NAME"}
        document.setdefault("components", {})["securitySchemes"] = {_SCHEME: scheme}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in OPEN_PATHS:
                continue
            if asks_for_keys:  # whose owners may have limits of their own
                asks = QUESTIONS in operation.get("tags", ())
                operation["security"] = [{_SCHEME: [_scope_of(path, method.upper(), asks)]}]
            if asks_for_keys or settings.has_owner_limits:
                operation["responses"].setdefault("429", {})


def _scope_of(path: str, method: str, asks: bool) -> str:
    if path in _ADMIN_PATHS:
        return "admin"
    return "read" if method in _READING or (asks and method == "POST") else "write"


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in own)]
        await send(message)

    return send_with_headers


def _invalid(code: str, detail: str) -> ServiceError:
    return _refused(code, detail, 'error="invalid_token"')


def _refused(code: str, detail: str, challenge: str = "", status: int = 401) -> ServiceError:
    scheme = f"Bearer {challenge}".rstrip()
    return ServiceError(code, status, detail, headers={"WWW-Authenticate": scheme})
