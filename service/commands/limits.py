"""`mixserve limits`: give one owner limits of its own, in place of what the settings say for all."""

import json
import math
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from service.commands.command_line import DataDir, fail, open_database

app = typer.Typer(
    help="Gives owners limits of their own, in place of the MIXSERVE_OWNER_* settings.", no_args_is_help=True
)
_NONE = "none"
Owner = Annotated[str, typer.Argument(help="Whose; see `mixserve keys list`.")]


class Limit(StrEnum):
    """What can be limited."""

    REQUESTS_PER_SECOND = "requests-per-second"
    REQUEST_BURST = "request-burst"
    QUEUED_FITS = "queued-fits"
    RUNNING_FITS = "running-fits"
    STORED_BYTES = "stored-bytes"
    DEVICE_SECONDS = "device-seconds"

    @property
    def stored_name(self) -> str:
        """Its name in the database, and in JSON."""
        return self.value.replace("-", "_")


@app.command("set")
def give(
    owner: Owner,
    limit: Limit,
    value: Annotated[str, typer.Argument(help="A number above 0, or none for no limit.")],
    data_dir: DataDir = None,
) -> None:
    """Gives an owner a limit of its own. It holds from the next request on, on every replica.

    Example: mixserve limits set lab running-fits 4
    """
    from service.storage import own_limits

    number = own_limits.UNLIMITED if value == _NONE else _number(value, limit, own_limits.LIMITS)
    with open_database(data_dir) as database, database.write() as session:
        own_limits.give(session, owner, limit.stored_name, number)
    typer.echo(f"{limit} of {owner}: {_shown(number)}", err=True)


@app.command("unset")
def take_back(owner: Owner, limit: Limit, data_dir: DataDir = None) -> None:
    """Has the settings hold for an owner again.

    Example: mixserve limits unset lab running-fits
    """
    from service.storage import own_limits

    with open_database(data_dir) as database, database.write() as session:
        had_one = own_limits.take_back(session, owner, limit.stored_name)
    if not had_one:
        fail(f"{owner} has no {limit} of its own; `mixserve limits list` has what there is")
    typer.echo(f"{limit} of {owner}: as the settings say", err=True)


@app.command("list")
def list_limits(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Lists the limits that owners have of their own; a value of none lifts what the settings say.

    Example: mixserve limits list --json
    """
    from service.storage import own_limits

    with open_database(data_dir) as database, database.read() as session:
        rows = own_limits.all_of(session)
    if as_json:
        listed: list[dict[str, Any]] = [
            {"owner": row.owner, "limit": row.name, "value": None if math.isinf(row.value) else row.value}
            for row in rows
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    table = Table(*(Column(name, overflow="fold") for name in ("owner", "limit", "value")), box=None)
    for row in rows:
        table.add_row(row.owner, row.name.replace("_", "-"), _shown(row.value))
    Console().print(table)


def _number(text: str, limit: Limit, kinds: Any) -> float:
    kind = kinds[limit.stored_name]
    try:
        number = float(kind(text))
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        whole = "a whole number" if kind is int else "a number"
        fail(f"{limit} must be {whole} above 0, or {_NONE}; not {text!r}")
    return number


def _shown(value: float) -> str:
    return _NONE if math.isinf(value) else f"{value:.12g}"
