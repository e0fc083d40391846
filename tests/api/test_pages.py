"""Lists: newest first, by keyset, with one end mark."""

import httpx
import pytest

from tests.api.test_problems import assert_problem


def test_every_item_once_newest_first_while_others_are_added(http: httpx.Client) -> None:
    made = [http.post("/v1/datasets", json={"points": [[float(i)]]}).json()["id"] for i in range(7)]
    seen: list[str] = []
    query = "page_size=2"
    while True:
        page = http.get(f"/v1/datasets?{query}").json()
        seen += [item["id"] for item in page["items"]]
        http.post("/v1/datasets", json={"points": [[9.0]]})
        if "next_page_token" not in page or set(made) <= set(seen):
            break
        query = f"page_size=2&page_token={page['next_page_token']}"
    assert [item for item in seen if item in made] == made[::-1]
    assert len(set(seen)) == len(seen)


def test_the_end_has_no_token(http: httpx.Client) -> None:
    token, sizes = "", []
    while True:
        page = http.get(f"/v1/mixtures?page_size=50{token}").json()
        sizes.append(len(page["items"]))
        if "next_page_token" not in page:
            break
        token = f"&page_token={page['next_page_token']}"
    assert all(size == 50 for size in sizes[:-1])


@pytest.mark.parametrize("noun", ["datasets", "fits", "mixtures"])
def test_page_sizes(http: httpx.Client, noun: str) -> None:
    assert_problem(http.get(f"/v1/{noun}?page_size=0"), 422)
    assert_problem(http.get(f"/v1/{noun}?page_size=two"), 422)
    assert_problem(http.get(f"/v1/{noun}?page_token=%00"), 422)
    assert_problem(http.get(f"/v1/{noun}?page_token=made-up"), 422)
    assert len(http.get(f"/v1/{noun}?page_size=100000").json()["items"]) <= 200
