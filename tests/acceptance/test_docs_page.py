"""The pages in a real browser, which may ask nobody but the service."""

import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from scripts.vendor_web import LIBRARIES, differing
from service.api.pages import WEB
from tests import require_browser
from tests.serving import Server

# A name that is not the loopback's: on a loopback, Swagger UI leaves its validator out by itself.
HOST = "mixserve.example"
OWN_FILES = sorted(path for path in WEB.glob("*") if path.is_file())
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = require_browser.browser_path()
    assert path, "no Chromium: python tests/require_browser.py"
    arguments = [*require_browser.ARGUMENTS, f"--host-resolver-rules=MAP {HOST} 127.0.0.1"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=arguments)
        yield launched
        launched.close()


@dataclass
class Visit:
    """A page, what it asked for, and what it complained of."""

    page: Page
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.requested if not url.startswith("data:")}


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


def test_the_documentation_shows_every_operation_and_asks_no_other_host(visit: Visit, http: httpx.Client):
    document = http.get("/openapi.json").json()
    visit.page.goto("/docs")
    expect(visit.page.locator(".opblock")).to_have_count(sum(map(len, document["paths"].values())))
    visit.page.locator("#operations-fits-create_fit").get_by_role("button").first.click()
    expect(visit.page.locator("#operations-fits-create_fit .opblock-body")).to_contain_text("n_components")
    visit.page.wait_for_load_state("networkidle")
    assert visit.hosts() == {urlsplit(visit.page.url).netloc}
    assert visit.complaints == []


def test_the_documentation_can_try_an_operation_out(visit: Visit):
    visit.page.goto("/docs")
    operation = visit.page.locator("#operations-service-get_liveness")
    operation.get_by_role("button").first.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert visit.hosts() == {urlsplit(visit.page.url).netloc}


def test_the_first_page_says_what_there_is(visit: Visit, http: httpx.Client):
    visit.page.goto("/")
    expect(visit.page.locator("#readiness")).to_have_text("ready")
    worker = http.get("/v1/workers").json()["items"][0]
    expect(visit.page.locator("#workers tbody tr")).to_contain_text(worker["device"]["name"])
    visit.page.get_by_role("link", name="API documentation").click()
    expect(visit.page).to_have_url(re.compile(r"/docs$"))
    assert visit.hosts() == {urlsplit(visit.page.url).netloc}
    assert visit.complaints == []


def test_the_gold_demo_runs_from_the_keyboard(visit: Visit, http: httpx.Client):
    visit.page.goto("/")
    expect(visit.page.locator("#readiness")).to_have_text("ready")
    button = visit.page.get_by_role("button", name="Fit the gold mixture")
    for _ in range(10):
        visit.page.keyboard.press("Tab")
        if button.evaluate("button => button === document.activeElement"):
            break
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#demo-learned circle.point")).to_have_count(1000, timeout=30_000)
    expect(visit.page.locator("#demo-truth circle.point")).to_have_count(1000)
    expect(visit.page.locator("#demo-learned ellipse")).to_have_count(12)

    fit = http.get("/v1/fits").json()["items"][0]
    log_likelihood = f"{fit['result']['log_likelihood']:.2f}".replace("-", "−")
    expect(visit.page.locator("#demo-figures")).to_contain_text(log_likelihood)
    expect(visit.page.locator("#fits tbody tr").first).to_contain_text(f"{fit['id'][-6:]}succeeded")
    expect(visit.page.locator("#datasets tbody tr").first).to_contain_text("1,000")
    weights = [f"{weight:.3f}" for weight in fit["result"]["mixture"]["weights"]]
    for pair in fit["result"]["recovery"]["matching"]:
        row = visit.page.locator("#demo-parameters tbody tr").nth(pair["gold_component"])
        expect(row).to_contain_text(f"→ {weights[pair['fitted_component']]}")
    assert visit.complaints == []


def test_the_ellipses_lie_where_the_covariances_say(visit: Visit, http: httpx.Client):
    """The gold component with correlation 0.8: its ellipse has the covariance's axes and angle."""
    visit.page.goto("/")
    visit.page.get_by_role("button", name="Fit the gold mixture").click()
    ellipse = visit.page.locator("#demo-truth ellipse.k2:not(.outer)")
    expect(ellipse).to_have_count(1, timeout=30_000)
    found = ellipse.evaluate(
        "e => [e.rx.baseVal.value / e.ry.baseVal.value, e.transform.baseVal.getItem(0).angle]"
    )
    eigenvalues, eigenvectors = np.linalg.eigh([[0.16, 0.16], [0.16, 0.25]])
    x, y = eigenvectors[:, 1] * np.sign(eigenvectors[0, 1])
    ratio, angle = (
        (eigenvalues[1] / eigenvalues[0]) ** 0.5,
        -math.degrees(math.atan2(y, x)),
    )  # down is positive
    assert found == [pytest.approx(ratio, rel=1e-3), pytest.approx(angle, abs=0.05)]


@pytest.mark.parametrize(
    ("visit", "dark"),
    [
        ({"viewport": {"width": 400, "height": 800}, "color_scheme": "light"}, False),
        ({"viewport": {"width": 400, "height": 800}, "color_scheme": "dark"}, True),
    ],
    indirect=["visit"],
)
def test_a_narrow_page_does_not_scroll_sideways_in_light_and_dark(visit: Visit, dark: bool):
    visit.page.goto("/")
    visit.page.get_by_role("button", name="Fit the gold mixture").click()
    expect(visit.page.locator("#demo-learned svg")).to_be_visible(timeout=30_000)
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 400
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) is dark


def test_the_first_page_says_when_nothing_answers(visit: Visit):
    visit.page.goto("/")
    expect(visit.page.locator("#readiness")).to_have_text("ready")
    visit.page.context.set_offline(True)
    expect(visit.page.locator("#readiness")).to_have_text("does not answer", timeout=15_000)
    visit.page.context.set_offline(False)
    expect(visit.page.locator("#readiness")).to_have_text("ready", timeout=15_000)


class _Loaded(HTMLParser):
    """Collects what a page would load, and whatever is written into it that a strict policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "action", "srcset", "data"):
                self.urls.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
        if tag == "style" or (tag == "script" and "src" not in dict(attrs)):
            self.inline.append(tag)


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_a_page_names_no_other_host_and_holds_nothing_inline(page: str, http: httpx.Client):
    answer = http.get(page)
    loaded = _Loaded()
    loaded.feed(answer.text)
    assert loaded.urls
    assert loaded.inline == []
    for url in loaded.urls:
        assert not urlsplit(url).netloc, url
        if url.startswith("/"):
            assert http.get(url).status_code == 200, url
    policy = answer.headers["Content-Security-Policy"]
    sources = {source for rule in policy.split(";") for source in rule.split()[1:]}
    assert sources == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: path.name)
def test_no_file_of_ours_names_another_host(path):
    text = path.read_text().replace(SVG_NAMESPACE, "")
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), path.name
    assert "@import" not in text


def test_the_vendored_styles_load_nothing_and_the_files_are_as_pinned():
    styles = (WEB / "vendor/swagger-ui/swagger-ui.css").read_text()
    assert "@import" not in styles
    assert set(re.findall(r"url\(\s*[\"']?([a-z]*)", styles)) == {"data"}
    for library in LIBRARIES:
        assert differing(library) == []
        assert {"LICENSE", "NOTICE"} <= library.files.keys()


def test_without_a_browser_that_can_be_had_the_tests_say_what_to_install(monkeypatch):
    monkeypatch.setattr(require_browser, "browser_path", lambda: None)
    monkeypatch.setattr(require_browser, "can_install", lambda: False)
    with pytest.raises(SystemExit) as ended:
        require_browser.main()
    assert "apt-get install chromium" in str(ended.value)


def test_a_missing_browser_is_installed_where_that_can_be_done(monkeypatch, tmp_path):
    """An apt-get that notes what it was asked, and puts a chromium on the PATH when asked to install it."""
    asked = tmp_path / "asked"
    apt = tmp_path / "apt-get"
    apt.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n'
        f'case "$*" in *install*chromium*) cp "$0" {tmp_path}/chromium;; esac\n'
        'test "$DEBIAN_FRONTEND" = noninteractive\n'
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(require_browser, "can_install", lambda: True)
    monkeypatch.setattr(require_browser, "browser_path", lambda: shutil.which("chromium", path=str(tmp_path)))
    require_browser.main()
    assert [line.split()[1] for line in asked.read_text().splitlines()] == ["update", "install"]
