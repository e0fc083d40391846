"""The page on a service that asks for keys."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from service.storage import keys
from service.storage.database import Database
from tests.acceptance.browsing import Visit
from tests.acceptance.test_page import PATIENCE_MS
from tests.serving import Server, serving

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("data"), auth="keys") as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Server) -> Iterator[str]:
    database = Database(f"sqlite:///{server.data_dir / 'mixserve.sqlite3'}")
    with database.write() as session:
        made, _ = keys.create(session, "page", "lab", ("read", "write"), None)
    yield made
    database.close()


def test_it_asks_for_a_key_and_does_everything_with_it(visit: Visit, server: Server, key: str) -> None:
    page = visit.page
    page.goto("/#/fits")
    dialog = page.get_by_role("dialog", name="API key")
    dialog.get_by_label("API key").fill(key)
    dialog.get_by_label("API key").press("Enter")
    expect(dialog).to_have_count(0)
    page.goto("/#/?source=gold")
    page.get_by_role("button", name="Start the fit").click()
    # The events of the fit too are asked for with the key.
    expect(page.get_by_role("heading", name="The truth, and what was learned")).to_be_visible()
    with server.client(headers={"Authorization": f"Bearer {key}"}) as http:
        assert http.get(f"/v1/fits/{page.url.rpartition('/')[2]}").json()["status"] == "succeeded"
    assert key not in server.log
    assert not any(key in url for url in visit.requested)


def test_a_key_that_is_none_is_asked_for_again(visit: Visit) -> None:
    page = visit.page
    page.goto("/#/fits")
    box = page.get_by_role("dialog", name="API key").get_by_label("API key")
    box.fill("mixs_nonsense")
    box.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not a key as it was made")
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
