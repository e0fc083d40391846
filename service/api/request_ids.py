"""A request id for every request: taken when well-formed, else made; echoed, logged, and put in problems."""

import re
import secrets
from collections.abc import Iterable

from fastapi import Request

_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def request_id_from(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the id that a request came with, or a fresh one."""
    for name, value in headers:
        if name == b"x-request-id" and _WELL_FORMED.fullmatch(value):
            return value.decode("ascii")
    return secrets.token_hex(16)


def request_id_of(request: Request) -> str:
    """Returns the request's id."""
    return str(request.state.request_id)
