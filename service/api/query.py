"""Query parameters and small headers."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.routing import APIRoute

from service.errors import FieldError, Unprocessable

LARGEST_PAGE = 200
_LONGEST_WAIT_SECONDS = 60
_PAGE = r"^[a-z]{3}_[0-9a-z]{26}$"


async def refuse_unknown(request: Request) -> None:
    """Refuses query parameters that the endpoint does not have, or that are given more than once.

    Raises:
        Unprocessable: There are some.
    """
    route: APIRoute = request.scope["route"]
    known = _names(route.dependant)
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        has = f"it has {', '.join(sorted(known))}" if known else "it has none"
        errors = [FieldError((name,), "there is no such parameter") for name in unknown]
        raise Unprocessable(f"This endpoint does not have some of the query parameters sent; {has}.", errors)
    given = Counter(name for name, _ in request.query_params.multi_items())
    repeated = sorted(name for name, times in given.items() if times > 1)
    if repeated:
        errors = [FieldError((name,), "must be given once") for name in repeated]
        raise Unprocessable(f"These parameters are given more than once: {', '.join(repeated)}.", errors)


def _names(dependant: Any) -> set[str]:
    own = {field.alias for field in dependant.query_params}
    return own.union(*(_names(nested) for nested in dependant.dependencies))


@dataclass(frozen=True)
class PageQuery:
    """Which page of a list is wanted: how many items, those before which."""

    size: int
    before: str | None


async def _page_query(  # asynchronous, since FastAPI takes others to a thread
    page_size: Annotated[int, Query(ge=1, description=f"more than {LARGEST_PAGE} is cut to that")] = 50,
    page_token: Annotated[
        str | None, Query(pattern=_PAGE, description="next_page_token of the page before")
    ] = None,
) -> PageQuery:
    return PageQuery(min(page_size, LARGEST_PAGE), page_token)


Paging = Annotated[PageQuery, Depends(_page_query)]


def page_answer(items: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """Returns a page; `next_page_token` is there only if there is a next one."""
    return {"items": items} | ({"next_page_token": items[-1]["id"]} if more else {})


def preferred_wait(request: Request) -> int | None:
    """Returns the seconds of `Prefer: wait=N` (RFC 7240), at most 60; None when absent or not understood."""
    match = re.search(
        r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])", request.headers.get("prefer", "")
    )
    return min(int(match.group(1)), _LONGEST_WAIT_SECONDS) if match else None
