"""The service that a command talks to, and the exit codes that tell a script how it went."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from service.client import Client

FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

EXIT_CODES = (
    "Exit codes: 0 done; 1 refused, failed or cancelled; 2 usage; 3 no service answers; 130 interrupted."
)

Url = Annotated[
    str | None,
    typer.Option(
        envvar="MIXSERVE_URL", help="The service. [default: http://127.0.0.1:8000]", show_default=False
    ),
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="MIXSERVE_API_KEY", help="Where the service asks for one.")
]
_RETRIES = 2


def end(code: int, message: str) -> NoReturn:
    """Ends the command with a sentence on standard error."""
    typer.echo(f"mixserve: {message}", err=True)
    raise typer.Exit(code)


@contextmanager
def connected(url: str | None, api_key: str | None) -> Iterator["Client"]:
    """Yields a client, and ends the command with a sentence and its exit code when something goes wrong."""
    from service.client import Client, FitUnsuccessful, Problem, ServiceUnreachable

    try:
        with Client(url, api_key=api_key, retries=_RETRIES) as client:
            yield client
    except ServiceUnreachable as error:
        end(UNREACHABLE, f"{error}; start one with `mixserve serve`, or name another with --url")
    except Problem as error:
        places = "".join(f"\n  {place.pointer}: {place.message}" for place in error.errors)
        end(FAILED, f"{error.detail} [{error.code}, request {error.request_id}]{places}")
    except FitUnsuccessful as error:
        end(FAILED, f"{error} [{error.code}]")
    except ValueError as error:
        end(FAILED, str(error))
    except KeyboardInterrupt:
        end(INTERRUPTED, "interrupted; what was asked of the service goes on")
