"""A database's sessions: what is committed, and what its failures become."""

from sqlalchemy import text

from service.storage.database import Database


def test_a_session_reads(database: Database) -> None:
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM fits")) == 0
