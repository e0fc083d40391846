"""The service as its users have it: a process, reached over HTTP."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import require_browser
from tests.acceptance.browsing import HOST, Visit
from tests.serving import Server


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = require_browser.browser_path()
    assert path, "no Chromium: python tests/require_browser.py"
    arguments = [*require_browser.ARGUMENTS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """An empty page on the service, watched; parametrize indirectly with options of the browser's context."""
    port = urlsplit(server.url).port
    options = {"viewport": {"width": 1200, "height": 900}} | getattr(request, "param", {})
    context = browser.new_context(base_url=f"http://{HOST}:{port}", **options)
    visited = Visit(context.new_page())
    context.on("request", lambda asked: visited.requested.append(asked.url))
    context.on("console", lambda said: visited.complaints.append(said.text) if said.type != "log" else None)
    context.on("weberror", lambda error: visited.complaints.append(str(error.error)))
    yield visited
    context.close()
