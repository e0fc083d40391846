"""Which URLs are read: those below a prefix, letter for letter, and nothing that could be taken for one."""

import pytest
from pydantic import ValidationError

from service.errors import Unprocessable
from service.settings import Settings
from service.storage.allowed_urls import AllowedUrls

PREFIXES = "s3://bucket/shared?region=eu-central-1 s3://bucket/shared/inner/ file:///data/points s3://whole"


@pytest.mark.parametrize(
    ("url", "prefix", "rest"),
    [
        ("s3://bucket/shared", "s3://bucket/shared?region=eu-central-1", ""),
        ("s3://bucket/shared/", "s3://bucket/shared?region=eu-central-1", ""),
        ("s3://bucket/shared/a/year=2026", "s3://bucket/shared?region=eu-central-1", "a/year=2026"),
        ("s3://bucket/shared/inner/x", "s3://bucket/shared/inner/", "x"),
        ("s3://whole/..a/b..", "s3://whole", "..a/b.."),
        ("file:///data/points/some day.parquet", "file:///data/points", "some day.parquet"),
    ],
)
def test_what_is_below_a_prefix_is_found(url: str, prefix: str, rest: str) -> None:
    found = AllowedUrls(PREFIXES).find(url)
    assert (found.url, found.prefix, found.rest) == (url.removesuffix("/"), prefix, rest)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket",
        "s3://bucket/share",
        "s3://bucket/shared-evil/x",
        "s3://bucket-evil/shared/x",
        "s3://whole-evil/x",
        "s3://whole.evil.example/x",
        "s3://bucket/shared/../secret",
        "s3://bucket/shared/..",
        "s3://bucket/shared/./x",
        "s3://bucket/shared//x",
        "s3://bucket/shared/x//",
        "s3://bucket/shared/%2e%2e/secret",
        "s3://bucket/shared/%2E%2E%2Fsecret",
        "s3://bucket/shared\\..\\secret",
        "s3://bucket/shared/x?endpoint_override=169.254.169.254",
        "s3://bucket/shared/x#y",
        "s3://key:secret@bucket/shared/x",
        "s3://bucket@evil/shared/x",
        "s3://bucket:80/shared/x",
        "S3://bucket/shared/x",
        "s3://BUCKET/shared/x",
        "s3://bucket/Shared/x",
        "s3:/bucket/shared/x",
        "s3:///bucket/shared/x",
        " s3://bucket/shared/x",
        "s3://bucket/shared/x\n",
        "s3://bucket/shared/\u202ex",
        "file:///data/points/../../etc",
        "file:///data/pointsevil",
        "file://localhost/data/points/x",
        "file:/data/points/x",
        "FILE:///data/points/x",
        "/data/points/x",
        "http://169.254.169.254/latest",
        "gs://bucket/shared/x",
        "s3://bucket/shared/" + "x" * 1100,
        "",
    ],
)
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        AllowedUrls(PREFIXES).find(url)
    assert refused.value.code == "URL_NOT_ALLOWED"
    assert refused.value.errors[0].pointer == "/url"
    assert "region" not in refused.value.detail


def test_without_prefixes_nothing_is_read() -> None:
    with pytest.raises(Unprocessable, match="MIXSERVE_DATASET_PREFIXES"):
        AllowedUrls().find("s3://bucket/shared")


@pytest.mark.parametrize(
    "prefix",
    [
        "s3://", "s3://a:b@bucket", "s3://bucket/../x", "s3://bucket//x", "s3://bucket/%2e", "s3:///x", "file://host/x",
        "file://x", "http://bucket/x", "bucket", "S3://bucket", "s3://bucket#x",
    ],
)  # fmt: skip
def test_a_prefix_that_is_none_is_refused_at_the_start(prefix: str) -> None:
    with pytest.raises(ValidationError, match="no prefix of datasets"):
        Settings(dataset_prefixes=f"s3://good/x?region=x&endpoint_override=127.0.0.1:9000 {prefix}")
