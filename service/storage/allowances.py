"""How many requests an owner may still make: one bucket for all replicas, which fills by the limit's rate."""

import math
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.storage.columns import now_plus, seconds_since
from service.storage.database import Database
from service.storage.tables import AllowanceRow


class Grant(NamedTuple):
    """What came out of a bucket, and what is left in it."""

    n_granted: int
    n_left: float


def take(database: Database, owner: str, n_wanted: int, per_second: float, burst: int) -> Grant:
    """Takes up to so many requests out of an owner's bucket.

    Args:
        database: Whose clock counts.
        owner: Whose bucket.
        n_wanted: How many requests.
        per_second: How fast the bucket fills.
        burst: How many it holds; a new one is full.
    """
    insert = sqlite.insert if database.is_sqlite else postgresql.insert
    found = (
        select(AllowanceRow.tokens, seconds_since(AllowanceRow.filled_at))
        .where(AllowanceRow.owner == owner)
        .with_for_update()
    )
    with database.write() as session:
        row = session.execute(found).one_or_none()
        if row is None:
            new = insert(AllowanceRow).values(owner=owner, tokens=burst, filled_at=now_plus())
            session.execute(new.on_conflict_do_nothing())
            row = session.execute(found).one()
        tokens, elapsed_seconds = row
        available = min(float(burst), tokens + per_second * max(0.0, elapsed_seconds))
        n_granted = min(n_wanted, math.floor(available))
        session.execute(
            update(AllowanceRow)
            .where(AllowanceRow.owner == owner)
            .values(tokens=available - n_granted, filled_at=now_plus())
            .execution_options(synchronize_session=False)
        )
    return Grant(n_granted, available - n_granted)
