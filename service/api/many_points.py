"""One question about as many points as a client sends: read, computed and written a part at a time."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from service.api.bodies import spooled_object
from service.api.inflow import Inflow
from service.api.json_points import POINTS, posted
from service.api.outflow import Outflow
from service.api.per_point import Arrays, Field, npy_header, written
from service.api.points import (
    column_order,
    readable,
    refuse_beside_json,
    require_columns,
    require_features,
    require_names,
)
from service.api.prepared import Prepared
from service.api.scoring import Question
from service.api.services import Services
from service.codecs.points import DecodedPoints, Wanted
from service.codecs.registry import JSON, NPY, read
from service.schemas.mixture import PointsBody
from service.storage.dataset_store import full_disk_is_said


def answered(
    services: Services,
    body: Inflow,
    source: tuple[str, Wanted],
    prepared: Prepared,
    question: Question,
    fields: Sequence[Field],
    media_type: str,
) -> Outflow:
    """Returns the answer about the points of a body; it waits for the body to come.

    Args:
        services: Whose threads compute.
        body: The points.
        source: Their media type, and what its reader is to know.
        prepared: The mixture.
        question: What is asked.
        fields: What its answers are called.
        media_type: What to answer in.

    Raises:
        ServiceError: The body is too large, or broken off.
        Unprocessable: The points are none, or not the mixture's, or the answer is too large.
    """
    outflow = Outflow(services.store.scratch, services.settings.max_answer_bytes)
    try:
        with readable(), full_disk_is_said():
            computed = services.scoring.answers(question, prepared.mixture, _points(body, *source, prepared))
            counted = _Counted([array.numpy() for array in arrays] for arrays in computed)
            pieces = written(media_type, fields, iter(counted), 0, services.store.scratch, {})
            if media_type == NPY:
                next(pieces)  # a header, which must know how many there are
            for piece in pieces:
                outflow.append(piece)
        services.metrics.scored_points.inc(counted.n_rows)
        if media_type == NPY:
            outflow.head = npy_header(fields, counted.n_rows)
    except BaseException:
        outflow.close()
        raise
    return outflow


def _points(body: Inflow, media_type: str, wanted: Wanted, prepared: Prepared) -> Iterator[Tensor]:
    """Yields points (n, D), with their columns in the mixture's order."""
    decoded = _decoded(body, media_type, wanted)
    order = column_order(decoded.columns, prepared.columns)
    require_features(decoded.n_features, prepared.mixture.n_features, prepared.columns)
    for rows in decoded.chunks:
        yield torch.from_numpy(np.ascontiguousarray(rows if order is None else rows[:, order]))


def _decoded(inflow: Inflow, media_type: str, wanted: Wanted) -> DecodedPoints:
    if media_type != JSON:
        decoded = read(media_type, inflow, wanted)
        require_names(decoded.columns)
        return decoded
    refuse_beside_json(columns=None if wanted.columns is None else ",".join(wanted.columns))
    body = posted(PointsBody, spooled_object(inflow, wanted.scratch), POINTS)
    chunks = body.points(("points",))
    assert chunks is not None, "the schema asks for them"  # noqa: S101
    first = next(chunks)
    require_columns(body.fields.columns, first.shape[1])
    return DecodedPoints(first.shape[1], body.fields.columns, None, chain([first], chunks))


class _Counted:
    """Arrays on their way, and how many points they are of.

    Attributes:
        n_rows: So many have been seen.
    """

    def __init__(self, chunks: Iterator[Arrays]) -> None:
        self._chunks = chunks
        self.n_rows = 0

    def __iter__(self) -> Iterator[Arrays]:
        for arrays in self._chunks:
            self.n_rows += len(arrays[0])
            yield arrays
