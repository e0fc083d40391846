"""What a database's catalogue says of its tables, in a form that can be compared."""

from typing import Any

from sqlalchemy import Engine, inspect, text


def described(engine: Engine) -> dict[str, dict[str, Any]]:
    """Returns the columns, constraints and indexes of every table but the migrations' own."""
    inspector = inspect(engine)
    names = [name for name in inspector.get_table_names() if name != "alembic_version"]
    indexes = _indexes(engine)
    return {
        name: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(name)
            },
            "primary key": dict(inspector.get_pk_constraint(name)),
            "foreign keys": inspector.get_foreign_keys(name),
            "unique": sorted(map(str, inspector.get_unique_constraints(name))),
            "checks": {
                check["name"]: _squeezed(check["sqltext"]) for check in inspector.get_check_constraints(name)
            },
            "indexes": indexes.get(name, {}),
        }
        for name in names
    }


def _indexes(engine: Engine) -> dict[str, dict[str, str]]:
    """The definitions as the databases keep them: expressions, directions and conditions included."""
    if engine.dialect.name == "sqlite":
        query = "SELECT tbl_name, name, coalesce(sql, 'automatic') FROM sqlite_master WHERE type = 'index'"
    else:
        query = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    found: dict[str, dict[str, str]] = {}
    with engine.connect() as connection:
        for table, index, definition in connection.execute(text(query)):
            found.setdefault(table, {})[index] = _squeezed(definition)
    return found


def _squeezed(sql: str) -> str:
    return " ".join(sql.split())
