"""The client against a service that runs, blocking and awaited."""

import asyncio
import subprocess
import sys

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from service import client as public
from service.client import AsyncClient, Client, FitUnsuccessful, NotFound, Unprocessable
from tests import oracles
from tests.serving import GOLD, Server

Rows = NDArray[np.float64]


def test_importing_it_loads_nothing_of_the_server() -> None:
    code = (
        "import sys, service.client; "
        "print([m for m in ('torch', 'fastapi', 'sqlalchemy', 'sklearn', 'pyarrow') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_from_points_to_samples(client: Client, blobs: Rows) -> None:
    fit = client.fit(blobs, 2, seed=1)
    result = fit.wait(progress=False)
    assert (fit.status, result.n_components) == ("succeeded", 2)
    mixture = fit.mixture()
    np.testing.assert_allclose(mixture.weights, [0.6, 0.4], atol=0.02)
    np.testing.assert_allclose(mixture.means, [[0, 0], [8, 8]], atol=0.5)
    expected = oracles.log_density(blobs, mixture.weights, mixture.means, mixture.covariances)
    np.testing.assert_allclose(mixture.log_density(blobs), expected, rtol=1e-12)
    posterior = mixture.responsibilities(blobs)
    np.testing.assert_allclose(posterior.sum(axis=1), 1)
    assert (mixture.labels(blobs) == np.repeat([0, 1], [120, 80])).all()
    drawn = mixture.sample(5, seed=3)
    points, components = mixture.sample_with_components(5, seed=3)
    np.testing.assert_array_equal(drawn, points)
    assert set(components) <= {0, 1}
    assert drawn.shape == (5, 2)


def test_awaited_it_is_the_same(server: Server, blobs: Rows) -> None:
    async def asked() -> None:
        async with AsyncClient(server.url, trust_env=False) as client:
            fit = await client.fit(blobs, 2, seed=1, n_init=1)
            kinds = [event.type async for event in fit.events()]
            assert kinds[0] == kinds[-1] == "status"
            await fit.wait(progress=False)
            mixture = await fit.mixture()
            with Client(server.url, trust_env=False) as blocking:
                same = blocking.mixture(mixture.id)
                np.testing.assert_array_equal(same.log_density(blobs), await mixture.log_density(blobs))
                assert fit.id in [each.id for each in blocking.fits()]
            assert fit.id in [each.id async for each in client.fits(status="succeeded")]
            with pytest.raises(NotFound):
                await client.mixture("nope")

    asyncio.run(asked())


def test_both_clients_can_do_the_same() -> None:
    def surface(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert surface(public.AsyncClient) - {"aclose"} == surface(public.Client) - {"close"}
    assert surface(public.AsyncFit) == surface(public.Fit)
    assert surface(public.AsyncMixture) == surface(public.Mixture)


def test_events_go_on_behind_an_id(client: Client, blobs: Rows) -> None:
    fit = client.fit(blobs, 1)
    fit.wait(progress=False)
    events = list(fit.events())
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert list(fit.events(last_event_id=2)) == events[2:]
    assert list(fit.events(last_event_id=len(events))) == []


def test_a_fit_that_does_not_succeed(client: Client, blobs: Rows) -> None:
    fit = client.fit(blobs, 2, tolerance=0, max_steps=10**9)
    with pytest.raises(RuntimeError, match="wait"):
        _ = fit.result
    with pytest.raises(TimeoutError, match="goes on"):
        fit.wait(0.3, progress=False)
    behind = client.fit(blobs, 1)  # whose stream says nothing, since the worker is busy
    with pytest.raises(TimeoutError, match="queued"):
        behind.wait(0.3, progress=False)
    fit.cancel()
    behind.wait(progress=False)
    with pytest.raises(FitUnsuccessful) as caught:
        fit.wait(progress=False)
    assert caught.value.code == "CANCELLED"
    fit.delete()
    with pytest.raises(NotFound) as gone:
        fit.refresh()
    assert gone.value.code == "FIT_NOT_FOUND"


def test_arrays_travel_as_npy(client: Client, blobs: Rows) -> None:
    types: list[tuple[str | None, str | None]] = []

    def note(response: httpx.Response) -> None:
        types.append((response.request.headers.get("content-type"), response.headers.get("content-type")))

    client._http.event_hooks["response"].append(note)
    dataset = client.upload(blobs)
    client.points(dataset.id)
    mixture = client.create_mixture(**GOLD)
    types.clear()
    client.upload(blobs.astype(np.float32))
    client.points(dataset.id)
    mixture.log_density(blobs)
    mixture.responsibilities(blobs)
    mixture.sample(3)
    client._http.event_hooks["response"].pop()
    npy, plain = "application/x-npy", "application/json"
    assert types == [(npy, plain), (None, npy), (npy, npy), (npy, npy), (plain, npy)]


def test_problems_say_where(client: Client, blobs: Rows) -> None:
    with pytest.raises(Unprocessable) as caught:
        client.fit(blobs, 2, tolerance=-1, no_such=3)
    assert set(caught.value.pointers) == {"/tolerance", "/no_such"}
    assert caught.value.code == "INVALID_REQUEST"
    assert caught.value.request_id
    assert caught.value.request_id in str(caught.value)


def test_datasets(client: Client, blobs: Rows) -> None:
    made = client.upload(blobs, name="two groups", columns=["height", "width"])
    assert (made.n_samples, made.columns) == (200, ["height", "width"])
    np.testing.assert_array_equal(client.points(made.id), blobs)
    np.testing.assert_array_equal(client.points(made.id, limit=3, offset=5), blobs[5:8])
    gold = client.draw(GOLD, 50, seed=1)
    newest = client.datasets()
    assert [next(newest).id, next(newest).id] == [gold.id, made.id]
    client.delete_dataset(made.id)
    with pytest.raises(NotFound):
        client.dataset(made.id)


def test_tables_keep_their_names(client: Client, blobs: Rows) -> None:
    table = pa.table({"height": blobs[:, 0], "width": blobs[:, 1] + 3})
    for named in (table, table.to_pandas()):
        assert client.upload(named).columns == ["height", "width"]
    assert client.upload(pd.DataFrame(blobs)).columns is None
    odd = ["height, in m", " width"]
    assert client.upload(blobs, columns=odd, name="odd").columns == odd
    mixture = client.create_mixture(**GOLD, columns=["height", "width"])
    turned = table.select(["width", "height"])
    expected = mixture.log_density(np.column_stack(list(table.columns)))
    for named in (table, turned, turned.to_pandas()):
        np.testing.assert_array_equal(mixture.log_density(named), expected)


def test_points_that_are_none(client: Client) -> None:
    mixture = client.create_mixture(**GOLD)
    for bad in ([1.0, 2.0], [["a", "b"]], [[1 + 2j, 0]]):
        with pytest.raises(ValueError, match="points must"):
            mixture.log_density(bad)
    with pytest.raises(Unprocessable):
        mixture.log_density([[np.nan, 0.0]])


def test_lists_are_read_page_by_page(client: Client) -> None:
    made = [client.create_mixture(**GOLD, name=f"number {i}").id for i in range(3)]
    asked: list[str] = []
    client._http.event_hooks["request"].append(lambda request: asked.append(request.url.path))
    listed = client.mixtures()
    assert asked == []
    assert [next(listed).id for _ in range(3)] == made[::-1]
    assert asked == ["/v1/mixtures"]
    client._http.event_hooks["request"].pop()


def test_weights_count(client: Client, blobs: Rows) -> None:
    weights = np.repeat([1.0, 0.0], [120, 80])
    fit = client.fit(blobs, 1, sample_weight=weights)
    fit.wait(progress=False)
    np.testing.assert_allclose(fit.mixture().means[0], blobs[:120].mean(axis=0), atol=1e-6)


def test_workers_and_health(client: Client) -> None:
    assert client.health().status == "ok"
    assert [worker.device.type for worker in client.workers()] != []
