"""The pages in a real browser, which may ask nobody but the service."""

import re
import shutil
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from scripts.vendor_web import LIBRARIES, differing
from service.api.pages import WEB
from tests import require_browser
from tests.acceptance.browsing import Visit

OWN_FILES = sorted(path for path in WEB.rglob("*") if path.is_file() and WEB / "vendor" not in path.parents)
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


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


@pytest.mark.parametrize("path", OWN_FILES, ids=lambda path: str(path.relative_to(WEB)))
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
        assert "LICENSE" in library.files


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
