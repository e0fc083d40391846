"""Column types give back what was put in, the same on both databases."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import func, literal, select

from service.storage import mixtures
from service.storage.columns import Timestamp, now_plus
from service.storage.database import Database
from service.storage.tables import DatasetRow, FitRow
from tests.storage.making import claimed, queue_fit, stored_request

INSTANTS = [
    datetime(2026, 3, 29, 1, 30, 0, 123_457, UTC),
    datetime(2026, 7, 1, 12, 0, 0, 1, UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(1970, 1, 1, 0, 0, 0, 0, UTC),
    datetime(2026, 1, 1, 2, 0, 0, 500_000, timezone(timedelta(hours=5, minutes=30))),
]


def _dataset(**columns: object) -> DatasetRow:
    filled = {
        "source": "upload",
        "n_samples": 1,
        "n_features": 1,
        "sha256": "0" * 64,
        "size_bytes": 8,
        "statistics": {},
    }
    return DatasetRow(**(filled | columns))


@pytest.mark.parametrize("instant", INSTANTS)
def test_an_instant_comes_back_to_the_microsecond_in_utc(database: Database, instant: datetime) -> None:
    with database.write() as session:
        session.add(row := _dataset(created_at=instant))
    with database.read() as session:
        found = session.get_one(DatasetRow, row.id).created_at
        by_instant = session.scalar(select(DatasetRow.id).where(DatasetRow.created_at == instant))
    assert found == instant
    assert found.utcoffset() == timedelta(0)
    assert by_instant == row.id


def test_rows_are_dated_by_the_databases_clock(database: Database) -> None:
    with database.read() as session:
        clock = func.clock_timestamp() if not database.is_sqlite else func.unixepoch("now")
        before = session.scalar(select(clock))
    with database.write() as session:
        session.add(row := _dataset())
    with database.read() as session:
        created = session.get_one(DatasetRow, row.id).created_at
    if database.is_sqlite:
        before = datetime.fromtimestamp(before, UTC)
    assert before <= created < before + timedelta(seconds=5)


def test_now_plus_counts_seconds_from_the_moment_of_the_statement(database: Database) -> None:
    with database.read() as session:
        first = session.scalar(select(now_plus()))
        while session.scalar(select(now_plus())) == first:
            pass  # the clock goes on within one transaction
        now, later, earlier = session.execute(select(now_plus(), now_plus(90.5), now_plus(-90.5))).one()
    assert (later - now).total_seconds() == pytest.approx(90.5, abs=0.01)
    assert (now - earlier).total_seconds() == pytest.approx(90.5, abs=0.01)
    assert abs((datetime.now(UTC) - now).total_seconds()) < 5


def test_instants_compare_in_the_database(database: Database) -> None:
    with database.read() as session:
        past = literal(datetime(2020, 1, 1, tzinfo=UTC), Timestamp())
        assert session.scalar(select(past < now_plus()))
        assert not session.scalar(select(past > now_plus(-60)))


SMALLEST = float(np.nextafter(0.0, 1.0))
ARRAYS = {
    "plain": np.array([[1.0, 2.0], [3.0, 4.0]]),
    "negative zero": np.array([0.0, -0.0]),
    "not finite": np.array([np.inf, -np.inf, np.nan]),
    "extreme": np.array([SMALLEST, -SMALLEST, np.finfo(float).max, 0.1 + 0.2]),
    "no rows": np.empty((0, 3)),
    "no columns": np.empty((3, 0)),
    "three axes": np.arange(24.0).reshape(2, 3, 4),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "not contiguous": np.arange(20.0)[::3],
    "big endian": np.arange(3, dtype=">f8"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back_bit_by_bit(database: Database, name: str) -> None:
    array: NDArray[np.float64] = ARRAYS[name]
    with database.write() as session:
        given = {"weights": np.ones(1), "means": array, "covariances": np.ones((1, 1, 1))}
        row = mixtures.add(session, given | {"covariance_type": "full"})
    with database.read() as session:
        found = mixtures.get(session, row.id).means
    assert found.shape == array.shape
    assert found.dtype == np.float64
    native = np.ascontiguousarray(array, dtype=np.float64)
    assert found.tobytes() == native.tobytes()


def test_json_numbers_that_are_not_finite_come_back_as_their_names(database: Database) -> None:
    said = {
        "bic": float("nan"),
        "optima": [float("inf"), -float("inf"), 1e308, -0.0],
        "text": "NaN ü \U0001f600",
    }
    with database.write() as session:
        session.add(row := _dataset(statistics=said, gold=None))
    with database.read() as session:
        found = session.get_one(DatasetRow, row.id)
        assert session.scalar(select(DatasetRow.id).where(DatasetRow.gold.is_(None))) == row.id
    assert found.statistics == {
        "bic": "NaN",
        "optima": ["Infinity", "-Infinity", 1e308, 0.0],
        "text": "NaN ü \U0001f600",
    }
    assert str(found.statistics["optima"][3]) == "-0.0"


def test_progress_that_is_not_finite_is_kept(database: Database, store: object) -> None:
    with database.write() as session:
        session.add(dataset := _dataset())
    fit_id = queue_fit(database, dataset.id)
    claimed(database)
    with database.write() as session:
        session.get_one(FitRow, fit_id).progress = {"log_likelihood": -float("inf")}
    with database.read() as session:
        row = session.get_one(FitRow, fit_id)
    assert row.progress == {"log_likelihood": "-Infinity"}
    assert row.request == stored_request(dataset.id)
