"""Columns of an Arrow table as points, for the formats that Arrow reads."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from service.codecs.points import Rows, at, require_finite


def is_numeric(kind: pa.DataType) -> bool:
    """Whether a column's values are numbers as points have them: floats, or whole ones."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def rows_of(batch: pa.RecordBatch, first: int, columns: Sequence[str] | None) -> Rows:
    """Returns the rows (n, D) of a batch of numeric columns, of which `first` is the number of the first one.

    Whole numbers become the nearest double, as they do in JSON.

    Raises:
        InvalidPoints: A value is missing or not finite, naming row and column.
    """
    block = np.empty((batch.num_columns, batch.num_rows))
    for index, column in enumerate(batch.columns):
        if column.null_count:
            row = int(np.flatnonzero(pc.is_null(column).to_numpy(zero_copy_only=False))[0])
            raise at(first + row, index, columns, "is missing, and points have no missing values")
        block[index] = column.to_numpy()
    return require_finite(block.T, first, columns)
