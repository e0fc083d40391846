"""The API alone, without workers, as a process; on SQLite and on PostgreSQL."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from tests.conftest import PostgresqlServer
from tests.serving import Server, serving

FOREIGN = "foreign"
"""The folder in the service's own that it may read datasets in."""


class Documented:
    """Holds every answer against the OpenAPI document: declared status, media type, and schema."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._validators: dict[str, jsonschema.Draft202012Validator] = {}

    def check(self, response: httpx.Response) -> None:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return
        response.read()
        template = self._template(response.request.url.path)
        if template is None or not response.content or response.request.method == "HEAD":
            return
        operation = self._document["paths"][template].get(response.request.method.lower())
        if operation is None:
            return
        answers = operation["responses"]
        status = str(response.status_code)
        declared = answers.get(status)
        assert declared is not None, f"{status} of {template} is not declared"
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in declared["content"], f"{media_type} of {template} {status} is not declared"
        schema = declared["content"][media_type].get("schema")
        if schema is not None and media_type.endswith("json"):
            self._validator(f"{response.request.method} {template} {status}", schema).validate(
                json.loads(response.content)
            )

    def _validator(self, place: str, schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
        """Returns what validates by the schema at a place; making one takes longer than using it."""
        if place not in self._validators:
            whole = schema | {"components": self._document["components"]}
            self._validators[place] = jsonschema.Draft202012Validator(whole)
        return self._validators[place]

    def _template(self, path: str) -> str | None:
        parts = path.split("/")
        for template in self._document["paths"]:
            wanted = template.split("/")
            if len(wanted) == len(parts) and all(
                w == p or w.startswith("{") for w, p in zip(wanted, parts, strict=True)
            ):
                return template
        return None


@pytest.fixture(scope="session")
def sqlite_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _serving(tmp_path_factory.mktemp("api"), "") as running:
        yield running


@pytest.fixture(scope="session")
def postgresql_api(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgresqlServer
) -> Iterator[Server]:
    with _serving(tmp_path_factory.mktemp("api"), postgresql_server.create(migrated=False)) as running:
        yield running


def _serving(data_dir: Path, database_url: str) -> AbstractContextManager[Server]:
    return serving(
        data_dir,
        workers=0,
        database_url=database_url,
        max_queued_fits=100_000,
        dataset_prefixes=f"file://{data_dir / FOREIGN}",
        row_group_cache_bytes=50_000,
    )


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest) -> Server:
    """One per database for all tests of the API, which make their own things and count no others'.

    A parametrised fixture is ended whenever its parameter changes; those that it takes from live on.
    """
    running: Server = request.getfixturevalue(f"{request.param}_api")
    return running


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    with server.client(event_hooks={"response": [Documented(document).check]}) as client:
        yield client
