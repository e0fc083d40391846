"""Data on standard output: arrays and lists, for programs and for people."""

import csv
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.commands.connection import USAGE, end

if TYPE_CHECKING:
    from pydantic import BaseModel


class ArrayFormat(StrEnum):
    """What arrays are written in."""

    JSON = "json"
    CSV = "csv"
    NPY = "npy"


class ListFormat(StrEnum):
    """What lists are written in."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


AsArray = Annotated[ArrayFormat, typer.Option("--format", help="What to write on standard output.")]
AsList = Annotated[ListFormat, typer.Option("--format", help="What to write on standard output.")]


def write_array(array: Any, field: str, names: Sequence[str], form: ArrayFormat) -> None:
    """Writes an array (N,) or (N, C).

    Args:
        array: Numbers.
        field: Its name in JSON.
        names: Of its C columns in CSV.
        form: The format.
    """
    if form is ArrayFormat.JSON:
        write_json({field: array.tolist()})
    elif form is ArrayFormat.CSV:
        write_csv(names, array.reshape(len(array), -1).tolist())
    else:
        import numpy as np

        if sys.stdout.isatty():
            end(USAGE, "NPY is not for a terminal; send it to a file: --format npy > answer.npy")
        np.lib.format.write_array(sys.stdout.buffer, array, allow_pickle=False)
        sys.stdout.buffer.flush()


def write_json(content: Any) -> None:
    """Writes JSON; numbers that are not finite are strings, as the service writes them."""
    from pydantic_core import to_json

    typer.echo(to_json(content, indent=2, inf_nan_mode="strings").decode())


def write_csv(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a header row and rows; numbers read back as the same."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def write_list(items: Sequence["BaseModel"], names: Sequence[str], form: ListFormat) -> None:
    """Writes models: all of each as JSON, else the fields named."""
    if form is ListFormat.JSON:
        write_json([item.model_dump(mode="json") for item in items])
        return
    rows = [[_cell(getattr(item, name)) for name in names] for item in items]
    if form is ListFormat.CSV:
        write_csv(names, rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*names, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    # Off a terminal a line is as long as it needs to be: ids that are cut are of no use.
    Console(width=None if sys.stdout.isatty() else 60 * len(names)).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value.isoformat(timespec="seconds") if hasattr(value, "isoformat") else str(value)
