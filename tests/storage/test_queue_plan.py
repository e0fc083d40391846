"""The claim reads the live fits only, however many have ended: its plan says so."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from service.storage import fits, queue, upkeep, watching, workers
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow
from tests.storage.making import PARAMETERS, add_dataset, claim, queue_fit

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
    """Returns how each is done: on PostgreSQL with these parameters, and with any that it may be given."""
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    plans = []
    with database.read() as session:
        for statement, parameters in statements:
            rows = list(session.connection().exec_driver_sql(explain + statement, parameters))
            if not database.is_sqlite:
                rows += session.connection().exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {_prepared(statement)}")
            plans.append("\n".join(str(tuple(row)[-1]) for row in rows))
    return plans


def _prepared(statement: str) -> str:
    """Returns a statement for psycopg as it looks to the server once it is prepared."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    return re.sub(r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", statement)


def _reads_all_fits(plan: str) -> bool:
    return re.search(r"Seq Scan on fits|SCAN fits(?!.*USING)", plan) is not None


def test_a_claim_reads_the_live_fits_only(long_used: Database) -> None:
    with _recorded(long_used) as statements:
        assert claim(long_used) is not None
    on_fits = [one for one in statements if "lease_expires_at <" in one[0]]
    assert len(on_fits) == 2  # what is next and what dead workers left, and the claim
    looking, claiming = _plans(long_used, on_fits)
    assert "ix_fits_live" in looking
    assert "ix_fits_live" in claiming


def test_nothing_that_is_asked_again_and_again_reads_all_fits(long_used: Database) -> None:
    with long_used.read() as session:
        dataset_id = session.scalars(select(FitRow.dataset_id).limit(1)).one()
    with _recorded(long_used) as statements:
        queue_fit(long_used, dataset_id)
        held = claim(long_used, max_running_fits=3)
        assert held is not None
        queue.heartbeat(long_used, held, 30.0)
        queue.standing(long_used, held)
        queue.succeed(long_used, held, {}, PARAMETERS)
        with long_used.read() as session:
            workers.alive(session, 30.0)
            watching.queue_figures(session)
            fits.states(session, [held.fit_id])
    on_fits = [one for one in statements if re.search(r"\b(FROM|UPDATE) fits\b", one[0])]
    assert len(on_fits) > 8
    for (statement, _), plan in zip(on_fits, _plans(long_used, on_fits), strict=True):
        assert not _reads_all_fits(plan), f"{statement}\n{plan}"


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
