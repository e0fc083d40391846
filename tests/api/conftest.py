"""The API alone, without workers, as a process; on SQLite and on PostgreSQL."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from tests.serving import Server, serving


class Documented:
    """Holds every answer against the OpenAPI document: declared status, media type, and schema."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

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
            jsonschema.validate(
                json.loads(response.content), schema | {"components": self._document["components"]}
            )

    def _template(self, path: str) -> str | None:
        parts = path.split("/")
        for template in self._document["paths"]:
            wanted = template.split("/")
            if len(wanted) == len(parts) and all(
                w == p or w.startswith("{") for w, p in zip(wanted, parts, strict=True)
            ):
                return template
        return None


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Once per database, for all tests of the API: they make their own things and count no others'."""
    url = ""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_server").create(migrated=False)
    data_dir = tmp_path_factory.mktemp("api")
    with serving(data_dir, workers=0, database_url=url, max_queued_fits=100_000) as running:
        yield running


@pytest.fixture(scope="session")
def http(server: Server) -> Iterator[httpx.Client]:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    with server.client(event_hooks={"response": [Documented(document).check]}) as client:
        yield client
