"""The OpenAPI document: committed as it is served, complete, linted, and its examples true."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.write_openapi import OPENAPI, document
from tests import require_spectral
from tests.api.conftest import FOREIGN
from tests.serving import GOLD, Server

COMMITTED = json.loads(OPENAPI.read_text())
OPERATIONS = [
    (path, method, operation)
    for path, operations in COMMITTED["paths"].items()
    for method, operation in operations.items()
]
BINARY = {
    "application/octet-stream",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.parquet",
    "application/x-npy",
    "image/png",
}


def media(operation: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Where, media type and description of every body of an operation, coming and going."""
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        yield "request", media_type, content
    for status, answer in operation["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            yield status, media_type, content


def examples(content: dict[str, Any]) -> list[Any]:
    """The examples of a body: its own, or else its schema's."""
    if "example" in content:
        return [content["example"]]
    if "examples" in content:
        return [example["value"] for example in content["examples"].values()]
    schema = content.get("schema", {})
    if "$ref" in schema:
        schema = COMMITTED["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return list(schema.get("examples", []))


def test_the_committed_document_is_the_served_one() -> None:
    assert document() == COMMITTED, (
        "openapi.json is not what the service answers: run `make openapi`, look at the difference and commit "
        "it (after a merge conflict in it, too: it is written anew)"
    )


def test_the_server_serves_it(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json() == COMMITTED


def test_operations_are_named_tagged_and_described() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in COMMITTED["tags"]}
    for _, _, operation in OPERATIONS:
        assert operation["operationId"].isidentifier()
        assert operation["description"].strip()
        assert set(operation["tags"]) <= tags
    assert all(tag["description"] for tag in COMMITTED["tags"])


def test_every_body_has_an_example_that_fits_its_schema() -> None:
    for path, method, operation in OPERATIONS:
        for where, media_type, content in media(operation):
            place = f"{method} {path} {where} {media_type}"
            given = examples(content)
            assert given or media_type in BINARY, f"{place} has no example"
            for example in given:
                schema = content["schema"] | {"components": COMMITTED["components"]}
                jsonschema.validate(example, schema)


def test_every_refusal_is_a_problem_of_its_status() -> None:
    for path, _, operation in OPERATIONS:
        refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"406", "422", "500", "503"} <= set(refusals)
        assert "404" in refusals or "{" not in path
        for status, answer in refusals.items():
            if path == "/readyz" and status == "503":
                continue
            ((media_type, content),) = answer["content"].items()
            assert media_type == "application/problem+json"
            assert content["example"]["status"] == int(status)


@pytest.fixture(scope="module")
def made(http: httpx.Client) -> dict[str, str]:
    """The ids that the paths of the document need."""
    mixture = http.post("/v1/mixtures", json=GOLD).raise_for_status().json()
    gold = {"gold": GOLD, "n_samples": 10}
    dataset = http.post("/v1/datasets", json=gold).raise_for_status().json()
    fit = http.post("/v1/fits", json={"dataset": gold, "n_components": 1}).raise_for_status().json()
    return {"mixture_id": mixture["id"], "dataset_id": dataset["id"], "fit_id": fit["id"]}


def points_by_url(server: Server, columns: list[str]) -> str:
    """The URL of a file with these columns that the service may read."""
    folder = server.data_dir / FOREIGN / "examples"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({name: [0.0, 1.0] for name in columns}), folder / "0.parquet")
    return folder.as_uri()


def test_every_example_of_a_request_is_accepted(
    http: httpx.Client, server: Server, made: dict[str, str]
) -> None:
    sent = 0
    for path, method, operation in OPERATIONS:
        for where, media_type, content in media(operation):
            if where != "request":
                continue
            for example in examples(content):
                if isinstance(example, dict) and "url" in example:
                    example = example | {"url": points_by_url(server, example["columns"])}
                body = example if isinstance(example, str) else json.dumps(example)
                headers = {"Content-Type": media_type}
                answer = http.request(method, path.format(**made), content=body, headers=headers)
                assert answer.is_success, f"{method} {path}: {answer.text}"
                sent += 1
    assert sent >= 7


def test_spectral_finds_nothing() -> None:
    command = require_spectral.lint_command()
    assert command, "no Spectral: python tests/require_spectral.py"
    linted = subprocess.run([*command, str(OPENAPI)], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
