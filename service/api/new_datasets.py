"""Points on their way into the dataset store: posted, or drawn from a gold mixture."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from service.api.points import readable, require_columns, require_names
from service.api.services import Services
from service.api.specifications import mixture_of, parameters_answer
from service.codecs.points import Rows, Stream, Wanted
from service.codecs.registry import read
from service.errors import Unprocessable
from service.schemas.dataset import DatasetCreation, DatasetReference
from service.schemas.mixture import MixtureSpecification
from service.storage import datasets, owner_limits
from service.storage.database import Session
from service.storage.dataset_store import Draft, full_disk_is_said
from service.storage.datasets import NewDataset
from service.storage.surveys import Survey, survey
from service.storage.tables import DatasetRow

_DEFAULT_DRAWN = 1000
# A column costs some hundred bytes, whatever is in it.
_MOST_FEATURES = 10_000


@contextmanager
def new_dataset(
    services: Services,
    body: DatasetCreation | DatasetReference,
    points: Iterator[Rows] | None,
    *,
    name: str | None = None,
    columns: list[str] | None = None,
    place: tuple[str, ...] = (),
) -> Iterator[NewDataset]:
    """Yields the drafts of a dataset, from points or from a gold mixture; gone at the end unless published.

    Args:
        services: Where to write them.
        body: What the client sent.
        points: Those in it, (n, D) at a time.
        name: The dataset's name.
        columns: Names of its features.
        place: Where the body stands in what the client sent, for errors.

    Raises:
        Unprocessable: It would be too large, or the columns do not fit.
        InvalidMixture: The gold mixture is not one.
    """
    if body.gold is not None:
        with _drawn(services, body, body.gold, name, columns, place) as new:
            yield new
        return
    assert points is not None, "the schema asks for one of the two"  # noqa: S101
    first = next(points)
    n_features = first.shape[1]
    require_columns(columns, n_features)
    with _filled(services, n_features, chain([first], points)) as draft:
        yield NewDataset(draft, name, columns)


@contextmanager
def _filled(services: Services, n_features: int, chunks: Iterator[Rows]) -> Iterator[Draft]:
    """Yields a finished draft of points (n, D) that come one chunk after another."""
    _require_storable(services, 1, n_features)
    with services.store.draft(n_features) as draft:
        for rows in chunks:
            _require_storable(services, draft.n_rows + len(rows), n_features)
            draft.append(rows)
        draft.finish()
        yield draft


def surveyed(services: Services, asked: DatasetCreation) -> Survey:
    """Returns what the files at the URL asked for hold.

    Raises:
        Unprocessable: It may not be read, or they hold no points that can be taken.
        Unavailable: Their store does not answer.
    """
    foreign = services.store.foreign(asked.url or "")
    found = survey(foreign, asked.columns)
    require_names(found.columns)
    if len(found.columns) > _MOST_FEATURES:
        raise Unprocessable(
            f"The points have {len(found.columns)} features; at most {_MOST_FEATURES} are taken.",
            code="DATASET_TOO_LARGE",
        )
    return found


@contextmanager
def uploaded(
    services: Services, media_type: str, body: Stream, wanted: Wanted, name: str | None
) -> Iterator[NewDataset]:
    """Yields the draft of a dataset whose points come in as a stream; gone at the end unless published.

    Raises:
        Unprocessable: The points cannot be taken, or would be too large.
        ServiceError: The disk is full.
    """
    with full_disk_is_said(), readable():
        decoded = read(media_type, body, wanted)
    require_names(decoded.columns)
    _require_storable(services, decoded.n_samples or 1, decoded.n_features)
    with _filled(services, decoded.n_features, _readable(decoded.chunks)) as draft:
        yield NewDataset(draft, name, decoded.columns)


def _readable(chunks: Iterator[Rows]) -> Iterator[Rows]:
    with readable():
        yield from chunks


def add_dataset(services: Services, session: Session, new: NewDataset) -> DatasetRow:
    """Returns the row of a new dataset, its files published in the same transaction.

    Raises:
        LimitReached: Its owner stores as much as it may.
    """
    size_bytes = new.points.n_rows * new.points.n_columns * 8
    owner_limits.require_room_for_points(services.database, session, services.limits, size_bytes)
    return datasets.add(services.database, services.store, session, new)


@contextmanager
def _drawn(
    services: Services,
    body: DatasetCreation | DatasetReference,
    specification: MixtureSpecification,
    name: str | None,
    columns: list[str] | None,
    place: tuple[str, ...],
) -> Iterator[NewDataset]:
    gold = mixture_of(specification, (*place, "gold"))
    n_samples, seed = body.n_samples or _DEFAULT_DRAWN, body.seed or 0
    require_columns(columns, gold.n_features)
    _require_storable(services, n_samples, gold.n_features)
    kept = parameters_answer(gold) | {"n_samples": n_samples, "seed": seed}
    with services.store.draft(gold.n_features) as points, services.store.draft(1, "int64") as components:
        for drawn, labels in gold.sample_blocks(n_samples, seed):
            points.append(drawn.numpy())
            components.append(labels.numpy()[:, None])
        points.finish()
        components.finish()
        yield NewDataset(points, name, columns, kept, components)


def _require_storable(services: Services, n_samples: int, n_features: int) -> None:
    if n_features > _MOST_FEATURES:
        raise Unprocessable(
            f"The points have {n_features} features; at most {_MOST_FEATURES} are stored.",
            code="DATASET_TOO_LARGE",
        )
    size, limit = n_samples * n_features * 8, services.settings.max_dataset_bytes
    if size > limit:
        raise Unprocessable(
            f"{n_samples} points of {n_features} features take {size} bytes; at most {limit} are stored.",
            code="DATASET_TOO_LARGE",
        )
