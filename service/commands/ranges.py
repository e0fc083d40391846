"""Numbers of components and families as they are written on a command line."""

import typer


def components(text: str) -> int | list[int]:
    """Returns `3` as 3, `1:8` as 1 to 8, `2,4` as both.

    Raises:
        typer.BadParameter: It is none of these.
    """
    try:
        parts = [_span(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is neither a number, a range as 1:8, nor a list as 2,4"
        ) from error
    several = [number for part in parts for number in part]
    if not several or min(several) < 1:
        raise typer.BadParameter(f"{text!r} names no number of components from 1 up")
    return several[0] if len(several) == 1 and ":" not in text else several


def _span(text: str) -> range:
    first, separator, last = text.partition(":")
    return range(int(first), int(last if separator else first) + 1)


def families(text: str) -> str | list[str]:
    """Returns `full` as it is, `full,diag` as both."""
    several = [name.strip() for name in text.split(",")]
    return several[0] if len(several) == 1 else several
