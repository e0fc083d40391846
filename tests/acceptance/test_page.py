"""The page at `/` in a real browser, from points to samples; it may ask nobody but the service."""

import csv
import json
import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.browsing import Visit
from tests.serving import GOLD

PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
LOOKS = [{"viewport": {"width": 400, "height": 800}, "color_scheme": "light"}, {"color_scheme": "dark"}]


def fitted(http: httpx.Client, **body: Any) -> dict[str, Any]:
    fit = http.post("/v1/fits", json=body, headers={"Prefer": "wait=60"}).raise_for_status().json()
    assert fit["status"] == "succeeded", fit
    return fit


@pytest.fixture(scope="module")
def gold(http: httpx.Client) -> dict[str, Any]:
    """A fit that chose, of points whose truth is known."""
    return fitted(http, dataset={"gold": GOLD, "n_samples": 500}, n_components=[2, 3], n_init=2)


def dots(page: Page, caption: str) -> Locator:
    return page.locator("figure", has=page.get_by_text(caption, exact=True)).locator("circle")


def assert_quiet(visit: Visit) -> None:
    """No error, nothing that the policy refused, nobody asked but the service itself."""
    assert visit.complaints == []
    assert {host for host in visit.hosts() if host} == {urlsplit(visit.page.url).netloc}


def test_from_a_file_to_samples(visit: Visit, http: httpx.Client, tmp_path: Any) -> None:
    page = visit.page
    points = np.random.default_rng(0).normal([[0, 0, 0]] * 150 + [[6, 5, 4]] * 150, 1.0)
    path = tmp_path / "plants.csv"
    np.savetxt(path, points, delimiter=",", header="length,width,height", comments="")
    page.goto("/")
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text("plants.csv has 300 points of 3 features.")).to_be_visible()
    page.get_by_label("Components").fill("1:3")
    page.get_by_role("checkbox", name="Spherical").check()
    page.get_by_label("Restarts").fill("2")
    page.get_by_role("button", name="Start the fit").click()
    expect(page.get_by_role("heading", level=1, name="2 components, spherical")).to_be_visible()
    expect(dots(page, "The data")).to_have_count(302)
    fit = http.get(f"/v1/fits/{page.url.rpartition('/')[2]}").json()
    expect(page.get_by_text(f"{fit['result']['bic']:,.1f}").first).to_be_visible()
    rows = page.get_by_role("group", name="Components").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(f"{100 * fit['result']['mixture']['weights'][0]:.1f} %")
    expect(page.get_by_role("img", name=re.compile("bic by number of components"))).to_be_visible()
    expect(page.get_by_role("group", name="Candidates").locator("tbody tr")).to_have_count(6)
    expect(page.get_by_role("img", name=re.compile("Log-likelihood by step"))).to_be_visible()

    assert_quiet(visit)


def test_a_view_of_three_features_is_shared_and_its_samples_are_taken_home(
    visit: Visit, http: httpx.Client
) -> None:
    points = np.random.default_rng(0).normal([[0, 0, 0]] * 150 + [[6, 5, 4]] * 150, 1.0)
    columns = ["length", "width", "height"]
    made = http.post("/v1/datasets", json={"points": points.tolist(), "columns": columns}).json()
    fit = fitted(http, dataset={"id": made["id"]}, n_components=2, n_init=1)
    page = visit.page
    page.goto(f"/#/fits/{fit['id']}")
    page.get_by_text("Uncertainty", exact=True).click()
    page.get_by_label("Up").select_option("height")
    expect(page).to_have_url(re.compile(r"colour=uncertainty&features=0,2$"))
    page.get_by_text("PCA", exact=True).click()
    expect(page.get_by_text(re.compile("principal component 1")).first).to_be_visible()
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_label("Samples", exact=True).fill("40")
    page.get_by_role("button", name="Draw samples").click()
    expect(page.get_by_text("40 points, seed 5")).to_be_visible()
    path = f"/v1/mixtures/{fit['result']['mixture_id']}/samples"
    drawn = http.post(path, json={"n_samples": 40, "seed": 5}).json()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    header, *rows_read = csv.reader(download.value.path().read_text().splitlines())
    assert header == [*columns, "component"]
    assert [[float(v) for v in row[:3]] for row in rows_read] == drawn["points"]
    assert [int(row[3]) for row in rows_read] == drawn["components"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download parameters").click()
    assert json.loads(download.value.path().read_text()) == fit["result"]["mixture"]
    page.reload()  # whoever gets the link sees the same
    expect(page.get_by_role("radio", name="PCA")).to_be_checked()
    expect(page.get_by_role("radio", name="Uncertainty")).to_be_checked()
    assert_quiet(visit)


def test_a_binary_file_is_sent_as_it_is(visit: Visit, http: httpx.Client, tmp_path: Any) -> None:
    points = np.random.default_rng(1).normal(size=(120, 4))
    path = tmp_path / "plants.npy"
    np.save(path, points)
    page = visit.page
    page.goto("/")
    page.locator("input[type=file]").set_input_files(path)
    expect(page.get_by_text("plants.npy has 120 points of 4 features.")).to_be_visible()
    stored = http.get("/v1/datasets", params={"page_size": 1}).json()["items"][0]
    assert stored["name"] == "plants.npy"
    assert http.get(f"/v1/datasets/{stored['id']}/points").json()["points"] == points.tolist()
    assert_quiet(visit)


def tab_to(page: Page, target: Locator) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("node => node === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached by the keyboard")


def test_the_gold_demo_by_the_keyboard_alone(visit: Visit, http: httpx.Client) -> None:
    page = visit.page
    page.goto("/")
    expect(page.locator("#readiness")).to_have_text("ready")
    tab_to(page, page.get_by_role("radio", name="File"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("Components")).to_have_value("3")
    tab_to(page, page.get_by_role("button", name="Start the fit"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The truth, and what was learned")).to_be_visible()
    expect(dots(page, "Truth")).to_have_count(1003)
    fit = http.get(f"/v1/fits/{page.url.rpartition('/')[2]}").json()
    recovery = fit["result"]["recovery"]
    expect(page.get_by_text(f"{recovery['adjusted_rand_index']:.3f}", exact=True)).to_be_visible()
    expect(page.get_by_role("group", name="True and learned parameters").locator("tbody tr")).to_have_count(3)
    tab_to(page, page.get_by_role("radio", name="Component", exact=True))
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("1 − largest responsibility")).to_be_visible()
    assert_quiet(visit)


def test_a_hundred_thousand_points_are_sampled_by_the_server(visit: Visit, http: httpx.Client) -> None:
    dataset = {"gold": GOLD, "n_samples": 100_000}
    fit = fitted(http, dataset=dataset, n_components=3, n_init=1)
    visit.page.goto(f"/#/fits/{fit['id']}")
    expect(visit.page.get_by_text("3,000 of 100,000 points, drawn by the server")).to_be_visible()
    expect(dots(visit.page, "The data")).to_have_count(3003)
    assert any("points?sample=3000" in url for url in visit.requested)
    assert not any(url.endswith("/points") for url in visit.requested)
    assert_quiet(visit)


def test_a_fit_is_watched_and_cancelled(visit: Visit, http: httpx.Client) -> None:
    slow = {"name": "sgd", "learning_rate": 0.001, "batch_size": 10}
    body = {"dataset": {"gold": GOLD}, "n_components": 3, "n_init": 2, "tolerance": 0, "max_steps": 10**8}
    fit = http.post("/v1/fits", json=body | {"optimizer": slow}).json()
    page = visit.page
    page.goto(f"/#/fits/{fit['id']}")
    lines = page.get_by_role("img", name=re.compile("Log-likelihood by step")).locator(
        "path[stroke^='var(--c']"
    )
    expect(lines).to_have_count(2)  # one for each restart
    before = lines.first.get_attribute("d")
    expect(lines.first).not_to_have_attribute("d", before or "")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("It was cancelled before it had ended.")).to_be_visible()
    assert http.get(f"/v1/fits/{fit['id']}").json()["status"] == "cancelled"
    assert_quiet(visit)


def test_fits_are_compared_and_deleted(visit: Visit, http: httpx.Client, gold: dict[str, Any]) -> None:
    other = fitted(http, dataset={"id": gold["dataset_id"]}, n_components=2, n_init=1)
    page = visit.page
    page.goto("/#/fits?status=succeeded")
    for fit in (gold, other):
        page.get_by_role("checkbox", name=f"Compare …{fit['id'][-6:]}").check()
    page.get_by_role("button", name="Compare two").click()
    bics = page.get_by_role("group", name="Figures of both fits").get_by_role("row", name="BIC")
    expect(bics).to_contain_text(f"{gold['result']['bic']:,.2f} ✓")
    expect(page.locator("main .split circle")).to_have_count(500 + 3 + 500 + 2)
    page.go_back()
    page.get_by_role("button", name=f"Delete …{other['id'][-6:]}").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name=f"Delete …{other['id'][-6:]}")).to_have_count(0)
    assert http.get(f"/v1/fits/{other['id']}").status_code == 404
    assert_quiet(visit)


def test_one_feature_is_a_histogram_with_its_curves(visit: Visit) -> None:
    page = visit.page
    page.goto("/#/?source=paste")
    page.get_by_role("textbox", name="Points").fill(
        "\n".join(str(i % 10 + (40 if i % 3 else 0)) for i in range(60))
    )
    page.get_by_label("Components").fill("2")
    page.get_by_role("button", name="Start the fit").click()
    picture = page.locator("figure", has=page.get_by_text("The data", exact=True))
    expect(picture.locator("g[stroke^='var(--'] > path")).to_have_count(3)
    expect(picture.locator("rect")).to_have_count(4)  # the bins that hold points
    assert_quiet(visit)


def test_what_is_wrong_is_said_where_people_look(visit: Visit) -> None:
    page = visit.page
    page.goto("/#/?source=paste")
    points, start = (
        page.get_by_role("textbox", name="Points"),
        page.get_by_role("button", name="Start the fit"),
    )
    said = page.get_by_role("alert")
    for text, components, saying in [
        ("", "2", "There are no points yet"),
        ("a,b\n1,2\n3,x", "2", "Point 2 has “x” where a number should be"),
        ("1,2\n3,4", "many", "a range to choose from such as 1:6"),
        ("1,2\n3,4", "5", "at least as many points"),
    ]:
        points.fill(text)
        page.get_by_label("Components").fill(components)
        start.click()
        expect(said).to_contain_text(saying)
        expect(said).to_be_focused()
    expect(said).to_contain_text("Request ")  # the last came from the service, with what finds it in the log
    page.goto("/#/fits/fit_nothing")
    expect(said).to_contain_text("There is no fit")
    page.goto("/#/nowhere")
    expect(said).to_contain_text("There is no such view")


@pytest.mark.parametrize("visit", LOOKS, indirect=True, ids=["narrow and light", "wide and dark"])
def test_every_view_is_accessible_and_fits_its_width(
    visit: Visit, http: httpx.Client, gold: dict[str, Any]
) -> None:
    page = visit.page
    mixture = gold["result"]["mixture_id"]
    views = [
        "",
        "fits",
        f"fits/{gold['id']}",
        "datasets",
        f"datasets/{gold['dataset_id']}",
        "mixtures",
        f"mixtures/{mixture}",
    ]
    axe = Axe()
    for view in views:
        page.goto(f"/#/{view}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator(".loading")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"], view
        found = axe.run(page)
        assert found.violations_count == 0, f"{view}: {found.generate_report()}"
    assert_quiet(visit)


def test_a_theme_that_is_chosen_stays(visit: Visit) -> None:
    page = visit.page
    ground = "getComputedStyle(document.body).backgroundColor"
    page.goto("/")
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) != light
    assert_quiet(visit)


def test_the_page_says_when_nothing_answers(visit: Visit) -> None:
    visit.page.goto("/")
    expect(visit.page.locator("#readiness")).to_have_text("ready")
    visit.page.context.set_offline(True)
    expect(visit.page.locator("#readiness")).to_have_text("does not answer")
    visit.page.context.set_offline(False)
    expect(visit.page.locator("#readiness")).to_have_text("ready")
