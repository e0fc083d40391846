"""The two clients: one blocks, one is awaited; what they can do is the same."""

import os
from types import TracebackType
from typing import Any, Self

import httpx

from service.client.calls import Caller
from service.client.fit import AsyncFit, Fit
from service.client.mixture import AsyncMixture, Mixture
from service.client.steps import Async, Sync
from service.client.surface import Surface

URL = "http://127.0.0.1:8000"
_TIMEOUT_SECONDS = 120.0


def _options(url: str | None, api_key: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Returns what both kinds of httpx client are made with."""
    key = api_key or os.environ.get("MIXSERVE_API_KEY")
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    address = url or os.environ.get("MIXSERVE_URL") or URL
    return {"base_url": address, "headers": headers, "timeout": _TIMEOUT_SECONDS} | options


class Client(Surface[Fit, Mixture], Sync):
    """A client whose methods block; a context manager.

    Args:
        url: Of the service; `MIXSERVE_URL` if absent, else this machine's port 8000.
        api_key: Sent as a bearer token; `MIXSERVE_API_KEY` if absent.
        retries: How often a call is tried again after a lost connection, 429 or 503.
        backoff_seconds: About how long the first pause is; each next is twice as long, up to 20 s.
        **options: Of `httpx.Client`: `timeout`, `verify`, `proxy` ...
    """

    _fit_kind = Fit
    _mixture_kind = Mixture

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retries: int = 5,
        backoff_seconds: float = 0.5,
        **options: Any,
    ) -> None:
        self._http = httpx.Client(**_options(url, api_key, options))
        self._caller = Caller(self._http, retries, backoff_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()


class AsyncClient(Surface[AsyncFit, AsyncMixture], Async):
    """A client whose methods are awaited; an asynchronous context manager. Its arguments are `Client`'s."""

    _fit_kind = AsyncFit
    _mixture_kind = AsyncMixture

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        retries: int = 5,
        backoff_seconds: float = 0.5,
        **options: Any,
    ) -> None:
        self._http = httpx.AsyncClient(**_options(url, api_key, options))
        self._caller = Caller(self._http, retries, backoff_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()
