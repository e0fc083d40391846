"""Mixtures: rows that never change."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table, select
from sqlalchemy.orm import Session

from service.errors import NotFound
from service.storage.identifiers import new_id
from service.storage.rows import find, newest_first
from service.storage.tables import MixtureRow

Parameters = dict[str, Any]
"""weights (K,), means (K, D), covariances (by type) as float64 arrays, and covariance_type."""


# Of the table: nobody changes the row any more.
_MIXTURES = cast(Table, MixtureRow.__table__)
_INSERT = _MIXTURES.insert().returning(_MIXTURES.c.owner, _MIXTURES.c.created_at)


def add(
    session: Session,
    parameters: Parameters,
    *,
    mixture_id: str | None = None,
    name: str | None = None,
    columns: list[str] | None = None,
    fit_id: str | None = None,
) -> MixtureRow:
    """Returns the row of a new mixture, whose parameters are in canonical order; it is of no session."""
    arrays: dict[str, NDArray[np.float64]] = {
        key: np.asarray(parameters[key], dtype=np.float64) for key in ("weights", "means", "covariances")
    }
    given = arrays | {
        "id": mixture_id or new_id("mix"),
        "covariance_type": parameters["covariance_type"],
        "name": name,
        "columns": columns,
        "fit_id": fit_id,
    }
    return MixtureRow(**given, **session.execute(_INSERT, given).mappings().one())


def get(session: Session, mixture_id: str) -> MixtureRow:
    """Returns a mixture.

    Raises:
        NotFound: There is none with this identifier.
    """
    return find(session, MixtureRow, "mixture", mixture_id)


def require(session: Session, mixture_id: str) -> None:
    """Reads of a mixture only whether it is there.

    Raises:
        NotFound: It is not.
    """
    if session.scalar(select(MixtureRow.id).where(MixtureRow.id == mixture_id)) is None:
        raise NotFound("mixture", mixture_id)


def page(session: Session, page_size: int, before: str | None) -> tuple[list[MixtureRow], bool]:
    """Returns mixtures, newest first, and whether more follow."""
    return newest_first(session, select(MixtureRow), MixtureRow.id, page_size, before)


def delete(session: Session, mixture_id: str) -> None:
    """Deletes a mixture.

    Raises:
        NotFound: There is none with this identifier.
    """
    session.delete(find(session, MixtureRow, "mixture", mixture_id, lock=True))
