"""Numbers, names and the two kinds of model that every schema is made of."""

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    Tag,
)

Number = Annotated[float, Strict(), AllowInfNan(False)]
"""A finite JSON number; strings, booleans, NaN and infinities are refused."""

Weight = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0)]
"""How much a point counts."""


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Takes 5.0 for 5, which JSON does not tell apart; strings and booleans are refused as ever."""

Count = Annotated[int, Strict(), Field(ge=1, le=2**53 - 1), WHOLE]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**53 - 1), WHOLE]

# One error per row is enough: a body of ten megabytes of nonsense must not become a million messages.
Row = Annotated[list[Number], Field(min_length=1, fail_fast=True)]
Rows = Annotated[list[Row], Field(fail_fast=True)]


def first_ragged(rows: list[list[float]], n_features: int, first: int = 0) -> str:
    """Returns what is wrong with the first row of another length, or nothing; row 0 is number `first`."""
    for index, row in enumerate(rows, first):
        if len(row) != n_features:
            return f"point {index} has {len(row)} features where point 0 has {n_features}"
    return ""


def _rectangular(rows: list[list[float]]) -> list[list[float]]:
    if wrong := first_ragged(rows, len(rows[0])):
        raise ValueError(wrong)
    return rows


Points = Annotated[
    list[Row],
    Field(min_length=1, fail_fast=True, description="(N, D) finite numbers, one inner list per point"),
    AfterValidator(_rectangular),
]


def _printable(text: str) -> str:
    # PostgreSQL's text holds no NUL, and neither terminals nor pages want the other control characters.
    if not text.isprintable():
        raise ValueError("must hold printable characters only")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("column names must differ from one another")
    return names


Columns = Annotated[
    list[Name], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_distinct)
]


MAX_METADATA_BYTES = 16_384


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuses what a JSON column on either database could not give back as it was."""
    try:
        text = json.dumps(metadata, allow_nan=False)
    except ValueError as error:
        raise ValueError("must hold finite numbers only") from error
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError(f"takes {len(text)} bytes as JSON; at most {MAX_METADATA_BYTES} are kept")
    if "\\u0000" in text:
        raise ValueError("must hold no NUL characters")
    return metadata


Metadata = Annotated[
    dict[Name, Any],
    Field(max_length=50, description="kept and handed back, not read"),
    AfterValidator(_storable),
]


def _shape_tag(value: Any) -> str:
    return "tag:list" if isinstance(value, list) else "tag:one"


# One value or a list of values; error pointers leave parts with this prefix out, which no client ever wrote.
One = Tag("tag:one")
Several = Tag("tag:list")
one_or_several = Discriminator(_shape_tag)


class Body(BaseModel):
    """A request body: unknown fields and loose types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def require_exactly_one(body: Body, names: tuple[str, ...]) -> None:
    """Refuses a body that has none or several of some fields.

    Raises:
        ValueError: It has.
    """
    given = [name for name in names if getattr(body, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"give exactly one of {', '.join(names)}" + (f", not {' and '.join(given)}" if given else "")
        )


class Answer(BaseModel):
    """A response body. Numbers that are not finite are written as the strings of protobuf's JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
