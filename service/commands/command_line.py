"""What the commands of `mixserve` share: settings from options, and sentences in place of tracebacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from service.errors import ServiceError
from service.settings import Settings

if TYPE_CHECKING:
    from service.storage.database import Database

DataDir = Annotated[Path | None, typer.Option(help="SQLite file and dataset store. [env: MIXSERVE_DATA_DIR]")]


def settings_from(data_dir: Path | None) -> Settings:
    """Returns the settings, or ends the command saying which are wrong."""
    given: dict[str, Any] = {} if data_dir is None else {"data_dir": data_dir}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [
            f"MIXSERVE_{'_'.join(str(part) for part in detail['loc']).upper()}: {detail['msg']}".replace(
                "MIXSERVE_: Value error, ", ""
            )
            for detail in error.errors(include_url=False)
        ]
        fail("the settings are not valid\n  " + "\n  ".join(lines))


@contextmanager
def said_plainly() -> Iterator[None]:
    """Ends the command with a sentence where a traceback would not help."""
    try:
        yield
    except ServiceError as error:
        fail(error.detail)
    except FileExistsError as error:
        fail(f"{error.filename} is there already; choose another name")
    except OSError as error:
        fail(f"cannot use {error.filename}: {error.strerror}; choose another --data-dir")
    except ValueError as error:
        fail(str(error))


@contextmanager
def open_database(data_dir: Path | None) -> Iterator["Database"]:
    """Yields the database of the settings, for commands that keep it; SQLite's may be made on the way."""
    from service.storage import migrations
    from service.storage.database import Database

    with said_plainly():
        database = Database(settings_from(data_dir).resolved_database_url)
        # A key may be made before the first start.
        if database.is_sqlite and migrations.current_revision(database) is None:
            migrations.upgrade(database)
        try:
            yield database
        finally:
            database.close()


def fail(message: str) -> NoReturn:
    """Ends the command with a sentence."""
    typer.echo(f"mixserve: {message}", err=True)
    raise typer.Exit(1)
