"""Liveness, readiness, workers, and the documents about the API itself."""

import httpx

from tests.api.test_problems import assert_problem


def test_an_api_without_workers_lives_but_is_not_ready(http: httpx.Client) -> None:
    assert http.get("/livez").json() == {"status": "ok", "checks": {}}
    response = http.get("/readyz")
    assert response.status_code == 503
    checks = response.json()["checks"]
    assert (checks["database"], checks["schema"]) == ("ok", "ok")
    assert "mixserve worker" in checks["worker"]
    assert http.get("/v1/workers").json() == {"items": []}


def test_every_operation_says_what_it_answers(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    names = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["operationId"] not in names
            names.add(operation["operationId"])
            assert operation["summary"]
            assert operation["description"], path
            answers = operation["responses"]
            success = next(answer for status, answer in answers.items() if status.startswith("2"))
            if method != "delete":
                assert all(content["schema"] for content in success["content"].values()), path
            if method == "post" and not path.endswith("/cancel"):
                assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    refs = set(_refs(document))
    assert refs <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def _refs(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _refs(value)]
    return [ref for value in node for ref in _refs(value)] if isinstance(node, list) else []


def test_bodies_may_be_compressed_and_not_too_large(http: httpx.Client) -> None:
    import gzip

    import pyarrow as pa

    body = b'{"points": [[1.5], [2.5]]}'
    headers = {"Content-Type": "application/json"}
    packed = {
        "gzip": gzip.compress(body),
        "zstd": pa.compress(body, "zstd", asbytes=True),
        "identity": body,
    }
    hashes = set()
    for encoding, content in packed.items():
        response = http.post(
            "/v1/datasets", content=content, headers=headers | {"Content-Encoding": encoding}
        )
        assert response.status_code == 201, encoding
        hashes.add(response.json()["sha256"])
    assert len(hashes) == 1
    response = http.post("/v1/datasets", content=b"no gzip", headers=headers | {"Content-Encoding": "gzip"})
    assert_problem(response, 400, "INVALID_ENCODING")
    response = http.post(
        "/v1/datasets", content=packed["gzip"][:-9], headers=headers | {"Content-Encoding": "gzip"}
    )
    assert_problem(response, 400, "INVALID_ENCODING")
    response = http.post("/v1/datasets", content=body, headers=headers | {"Content-Encoding": "br"})
    assert_problem(response, 415, "UNSUPPORTED_ENCODING")
