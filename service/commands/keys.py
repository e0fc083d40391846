"""`mixserve keys`: make, list and revoke keys to the API."""

import json
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from service.commands.command_line import DataDir, fail, open_database

app = typer.Typer(
    help="Makes, lists and revokes the keys that MIXSERVE_AUTH=keys asks for.", no_args_is_help=True
)
_LONGEST_OWNER = 64
_TIMES = ("created", "expires", "revoked")
_LONGEST_NAME = 200


class Scope(StrEnum):
    """What a key opens."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in lists and logs.")],
    owner: Annotated[
        str, typer.Option(help="Whose things it opens; those made without keys are local's.")
    ] = "local",
    scope: Annotated[
        list[Scope] | None,
        typer.Option(
            help="read: look and ask; write: make, change, delete; admin: metrics. [default: read, write]"
        ),
    ] = None,
    expires_in_days: Annotated[float | None, typer.Option(min=0, help="Default: never.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Makes a key and prints it, this once: nobody can find it out later.

    Example: mixserve keys create "nightly batch" --owner lab --scope read --scope write --expires-in-days 90
    """
    from service.storage import keys

    for what, text, longest in (("NAME", name, _LONGEST_NAME), ("--owner", owner, _LONGEST_OWNER)):
        if not 0 < len(text.strip()) <= longest or not text.isprintable():
            fail(f"{what} must be 1 to {longest} printable characters")
    scopes = frozenset(one.value for one in scope or (Scope.READ, Scope.WRITE))
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    with open_database(data_dir) as database, database.write() as session:
        key, row = keys.create(session, name.strip(), owner.strip(), scopes, expires_at)
    typer.echo(f"{row.id}, {row.scopes}, of {row.owner}; keep it now, it is not shown again:", err=True)
    typer.echo(key)


@app.command("list")
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Lists every key there was, without the keys themselves.

    Example: mixserve keys list --json
    """
    from service.storage import keys

    with open_database(data_dir) as database, database.read() as session:
        rows = [_described(row) for row in keys.all_of(session)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = (Column(name, overflow="fold") for name in ("name", "owner", "scopes", *_TIMES))
    table = Table(Column("id", no_wrap=True), *columns, box=None)  # an id is there to be copied
    for row in rows:
        table.add_row(
            *(row[name] for name in ("id", "name", "owner")),
            " ".join(row["scopes"]),
            *(row[f"{event}_at"] or "" for event in _TIMES),
        )
    Console().print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, from `mixserve keys list`.")],
    data_dir: DataDir = None,
) -> None:
    """Makes a key open nothing any more, at once and on every replica.

    Example: mixserve keys revoke key_0sgehyjtm4pa8261t7jb9t9z5k
    """
    from service.storage import keys

    with open_database(data_dir) as database, database.write() as session:
        row = keys.revoke(session, key_id)
    typer.echo(f"{row.id} ({row.name}) is revoked", err=True)


def _described(row: Any) -> dict[str, Any]:
    times = {
        name: None
        if (at := getattr(row, name)) is None
        else at.isoformat(timespec="seconds").replace("+00:00", "Z")
        for name in (f"{event}_at" for event in _TIMES)
    }
    return {"id": row.id, "name": row.name, "owner": row.owner, "scopes": row.scopes.split()} | times
