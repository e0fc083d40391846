"""Points from files: their format is known by their name."""

import sys
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.connection import FAILED, USAGE, end

if TYPE_CHECKING:
    from service.client.points import Points

_SUFFIXES = {
    "csv": "text/csv",
    "npy": "application/x-npy",
    "arrow": "application/vnd.apache.arrow.stream",
    "arrows": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}

File = Annotated[
    str,
    typer.Argument(help="Points: a .csv, .npy, .parquet or .arrow (stream) file; - reads CSV from stdin."),
]
Columns = Annotated[str | None, typer.Option(help="Which columns to take, as in `height,width`.")]


def read_points(file: str, columns: str | None) -> "Points":
    """Returns the points in a file, or ends the command saying what is wrong with them."""
    import numpy as np

    from service.client.points import Points
    from service.codecs.points import InvalidPoints, Wanted
    from service.codecs.registry import read

    suffix = "csv" if file == "-" else file.rpartition(".")[2].lower()
    if suffix not in _SUFFIXES:
        end(USAGE, f"{file} does not end in one of {', '.join(f'.{known}' for known in _SUFFIXES)}")
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    wanted = Wanted(tempfile.TemporaryFile, names)
    try:
        with sys.stdin.buffer if file == "-" else open(file, "rb") as stream:
            decoded = read(_SUFFIXES[suffix], stream, wanted)
            rows = np.concatenate([np.ascontiguousarray(chunk) for chunk in decoded.chunks])
    except OSError as error:
        end(FAILED, f"cannot read {file}: {error.strerror}")
    except InvalidPoints as error:
        end(FAILED, f"{file}: {error}")
    return Points(rows, decoded.columns)
