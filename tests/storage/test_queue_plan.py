"""The claim reads the live fits only, however many have ended: its plan says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert, text

from service.storage import queue, upkeep
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow
from tests.storage.making import add_dataset, claim, queue_fit

N_ENDED = 5_000


@contextmanager
def _recorded(database: Database) -> Iterator[list[tuple[str, Any]]]:
    statements: list[tuple[str, Any]] = []

    def record(*arguments: Any) -> None:
        statements.append((arguments[2], arguments[3]))

    event.listen(database.engine, "before_cursor_execute", record)
    yield statements
    event.remove(database.engine, "before_cursor_execute", record)


@pytest.fixture
def long_used(database: Database, store: DatasetStore) -> Database:
    """A database in which thousands of fits have ended and one is queued."""
    dataset_id = add_dataset(database, store)
    ended = {
        "status": "succeeded",
        "device": "auto",
        "dataset_id": dataset_id,
        "request": {},
        "fit_metadata": {},
    }
    with database.write() as session:
        session.execute(insert(FitRow), [ended] * N_ENDED)
    queue_fit(database, dataset_id)
    with database.write() as session:
        session.execute(text("ANALYZE"))
    return database


def _plans(database: Database, statements: list[tuple[str, Any]]) -> list[str]:
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    plans = []
    with database.read() as session:
        for statement, parameters in statements:
            rows = session.connection().exec_driver_sql(explain + statement, parameters)
            plans.append("\n".join(str(tuple(row)[-1]) for row in rows))
    return plans


def test_a_claim_reads_the_live_fits_only(long_used: Database) -> None:
    with _recorded(long_used) as statements:
        assert claim(long_used) is not None
    on_fits = [one for one in statements if "lease_expires_at <" in one[0]]
    assert len(on_fits) == 2  # what is next and what dead workers left, and the claim
    looking, claiming = _plans(long_used, on_fits)
    assert "ix_fits_live" in looking
    assert "ix_fits_live" in claiming
    for plan in (looking, claiming):
        assert "SCAN fits\n" not in plan + "\n"
        assert "Seq Scan on fits" not in plan


def test_a_claim_needs_no_sorting(long_used: Database) -> None:
    with _recorded(long_used) as statements:
        assert claim(long_used) is not None
    (plan,) = _plans(long_used, [one for one in statements if one[0].startswith("UPDATE fits")])
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_a_heartbeat_finds_its_fit_by_key(long_used: Database) -> None:
    held = claim(long_used)
    assert held is not None
    with _recorded(long_used) as statements:
        assert not queue.heartbeat(long_used, held, 30.0).lost
    (plan,) = _plans(long_used, [one for one in statements if one[0].startswith("UPDATE fits")])
    assert "pk_fits" in plan or "sqlite_autoindex_fits" in plan


def test_the_old_fits_are_found_by_when_they_ended(long_used: Database, store: DatasetStore) -> None:
    with _recorded(long_used) as statements:
        assert upkeep.remove_ended_fits(long_used, store, 60.0) == 0
    (plan,) = _plans(long_used, [one for one in statements if "finished_at <" in one[0]])
    assert "ix_fits_finished_at" in plan
