"""Column types and SQL expressions that mean the same on SQLite and PostgreSQL."""

import io
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import DateTime, Dialect, Float, LargeBinary, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

# Of an NPY file of version 1.0: six bytes that say what it is, two of the version, two of the head's length.
_BEFORE_HEADER = 10


class Timestamp(TypeDecorator[datetime]):
    """An instant, aware and in UTC: `timestamptz` on PostgreSQL, seconds since 1970 on SQLite."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Returns the type that the database stores."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Float(53))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Returns what is written for an aware datetime."""
        return value.timestamp() if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Returns an aware datetime in UTC."""
        if value is None:
            return None
        return datetime.fromtimestamp(value, UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class now_plus(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The database's own clock, some seconds ahead: leases must not depend on the clocks of workers.

    It reads the wall clock at the moment of the statement, not at the start of the transaction.
    """

    inherit_cache = True
    type = Timestamp()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(literal(float(seconds), Float(53)))


@compiles(now_plus, "sqlite")
def _now_on_sqlite(element: now_plus, compiler: SQLCompiler, **options: Any) -> str:
    return f"((julianday('now') - 2440587.5) * 86400.0 + {compiler.process(element.clauses, **options)})"


@compiles(now_plus, "postgresql")
def _now_on_postgresql(element: now_plus, compiler: SQLCompiler, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


class seconds_since(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """How long ago an instant was by the database's own clock, in seconds; NULL for none."""

    inherit_cache = True
    type = Float(53)


@compiles(seconds_since, "sqlite")
def _since_on_sqlite(element: seconds_since, compiler: SQLCompiler, **options: Any) -> str:
    instant = compiler.process(element.clauses, **options)
    return f"((julianday('now') - 2440587.5) * 86400.0 - {instant})"


@compiles(seconds_since, "postgresql")
def _since_on_postgresql(element: seconds_since, compiler: SQLCompiler, **options: Any) -> str:
    instant = compiler.process(element.clauses, **options)
    return f"CAST(EXTRACT(EPOCH FROM clock_timestamp() - {instant}) AS DOUBLE PRECISION)"


class Array(TypeDecorator[NDArray[np.float64]]):
    """A float64 array, exact, in NumPy's NPY format."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: NDArray[np.float64] | None, dialect: Dialect) -> bytes | None:
        """Returns the array as bytes."""
        if value is None:
            return None
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(value, dtype="<f8"), allow_pickle=False)
        return buffer.getvalue()

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> NDArray[np.float64] | None:
        """Returns the array."""
        if value is None:
            return None
        begin = _BEFORE_HEADER + int.from_bytes(value[_BEFORE_HEADER - 2 : _BEFORE_HEADER], "little")
        return np.frombuffer(value, "<f8", offset=begin).reshape(_shape(value[:begin])).copy()


@lru_cache
def _shape(head: bytes) -> tuple[int, ...]:
    """Returns the shape that the head of an array tells, as `process_bind_param` wrote it.

    NumPy has Python's own compiler read it, which takes longer than all the rest of a small mixture's row.
    """
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if version != (1, 0) or fortran_order or dtype != np.dtype("<f8"):
        raise ValueError("an array in the database is not as it is written there")
    return shape
