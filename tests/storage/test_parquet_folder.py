"""Datasets that stay in Parquet files of others: in a folder of this machine, and in moto's S3."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from service.errors import Conflict, ServiceError, Unprocessable
from service.storage.dataset_store import DatasetStore
from service.storage.foreign_files import _answering
from service.storage.parquet_folder import ForeignFile, ParquetFolder
from service.storage.surveys import survey
from tests.object_store import bucket_of_this_machine

POINTS = np.random.default_rng(0).standard_normal((1000, 2))
SHARES = {
    "a.parquet": slice(0, 450),
    "part=2/b.parquet": slice(450, 451),
    "part=2/c.parquet": slice(451, 1000),
}
GROUP_ROWS = 100


class Place:
    """A folder of files, written to by their owner and read by URL."""

    def __init__(self, folder: str, files: fs.FileSystem, url: str, prefix: str, scratch: Path) -> None:
        self._folder, self._files = folder, files
        self.url = url
        self.store = DatasetStore(scratch, prefixes=prefix)

    def write(self, name: str, table: pa.Table, **options: object) -> None:
        path = f"{self._folder}/{name}"
        self._files.create_dir(path.rpartition("/")[0])
        pq.write_table(table, path, filesystem=self._files, **options)

    def put(self, name: str, content: bytes) -> None:
        with self._files.open_output_stream(f"{self._folder}/{name}") as file:
            file.write(content)

    def remove(self, name: str) -> None:
        self._files.delete_file(f"{self._folder}/{name}")

    def survey(self, columns: list[str] | None = None, url: str | None = None):  # type: ignore[no-untyped-def]
        return survey(self.store.foreign(url or self.url), columns)

    def opened(self) -> ParquetFolder:
        found = self.survey()
        return ParquetFolder(self.store.foreign(self.url), found.files, found.columns)


def table(rows: np.ndarray, names: tuple[str, ...] = ("x", "y")) -> pa.Table:  # type: ignore[type-arg]
    return pa.table(dict(zip(names, rows.T, strict=False)))


@pytest.fixture(scope="module")
def query() -> Iterator[str]:
    with bucket_of_this_machine() as parameters:
        yield parameters


@pytest.fixture
def local(tmp_path: Path) -> Place:
    """An empty folder of this machine."""
    folder = tmp_path / "shared" / "points"
    folder.mkdir(parents=True)
    prefix = f"file://{folder.parent}"
    return Place(str(folder), fs.LocalFileSystem(), f"{prefix}/points", prefix, tmp_path / "own")


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    """An empty folder, on this machine or in a bucket."""
    if request.param == "file":
        made: Place = request.getfixturevalue("local")
        return made
    query = request.getfixturevalue("query")
    files, _ = fs.FileSystem.from_uri(f"s3://points?{query}")
    name = request.node.originalname
    return Place(f"points/{name}", files, f"s3://points/{name}", f"s3://points?{query}", tmp_path)


everywhere = pytest.mark.parametrize("place", ["file", "s3"], indirect=True)


def fill(place: Place) -> None:
    for name, rows in SHARES.items():
        place.write(name, table(POINTS[rows]), row_group_size=GROUP_ROWS)
    place.put("_SUCCESS", b"")
    place.put("README.txt", b"not points")


@everywhere
def test_points_are_read_where_they_are(place: Place) -> None:
    fill(place)
    found = place.survey()
    assert (found.n_samples, found.columns, found.url) == (1000, ["x", "y"], place.url)
    assert [file.name for file in found.files] == sorted(SHARES)
    assert found.files[0].n_rows == [100, 100, 100, 100, 50]
    assert found.sha256 == place.survey(url=f"{place.url}/").sha256 != place.survey(["y", "x"]).sha256
    points = place.opened()
    assert (points.n_rows, points.n_columns) == POINTS.shape
    whole = [points.row_group(number).T for number in range(len(points.starts) - 1)]
    np.testing.assert_array_equal(np.concatenate(whole), POINTS)
    for offset, limit in ((0, None), (449, 3), (99, 2), (1000, 5), (5, 0)):
        part = POINTS[offset : None if limit is None else offset + limit]
        np.testing.assert_array_equal(np.concatenate([part[:0], *points.rows(offset, limit)]), part)
    some = np.array([0, 99, 100, 449, 450, 451, 999])
    np.testing.assert_array_equal(points.at(some), POINTS[some])


@everywhere
def test_a_single_file_and_chosen_columns(place: Place) -> None:
    more = pa.table(
        {"name": ["a", "b"], "y": pa.array([1, 2], pa.int8()), "x": pa.array([0.5, 1.5], pa.float32())}
    )
    place.write("one.parquet", more)
    found = place.survey(["x", "y"], url=f"{place.url}/one.parquet")
    assert found.columns == ["x", "y"]
    assert found.files[0].name == ""
    points = ParquetFolder(place.store.foreign(found.url), found.files, found.columns)
    np.testing.assert_array_equal(points.row_group(0), [[0.5, 1.5], [1.0, 2.0]])
    with pytest.raises(Unprocessable, match=r"one\.parquet: these columns do not hold numbers: name"):
        place.survey()


@everywhere
def test_changed_files_are_refused(place: Place) -> None:
    fill(place)
    points = place.opened()
    np.testing.assert_array_equal(points.at(np.array([0])), POINTS[:1])
    place.write("a.parquet", table(POINTS[:450] + 1e-9), row_group_size=GROUP_ROWS)
    place.remove("part=2/b.parquet")
    for read in (lambda: points.row_group(0), lambda: points.at(np.array([0])), lambda: points.rows(0)):
        with pytest.raises(Conflict, match=r"a\.parquet is not what it was") as refused:
            read()
        assert refused.value.code == "DATASET_CHANGED"
    with pytest.raises(Conflict, match=r"part=2/b\.parquet is not what it was"):
        points.row_group(5)
    np.testing.assert_array_equal(points.row_group(6).T, POINTS[451:551])


def test_a_file_that_changes_while_it_is_read_is_refused(
    local: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(local)
    points = local.opened()
    original = points._foreign.open

    def open_twice(name: str):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(points._foreign, "open", changed_open)
        return original(name)

    def changed_open(name: str):  # type: ignore[no-untyped-def]
        local.write("a.parquet", table(POINTS[:450] * 2), row_group_size=GROUP_ROWS)
        return original(name)

    monkeypatch.setattr(points._foreign, "open", open_twice)
    with pytest.raises(Conflict):
        points.row_group(0)


def test_a_file_whose_footer_is_another_is_refused(local: Place) -> None:
    fill(local)
    found = local.survey()
    forged = [ForeignFile(**{**vars(file), "footer_sha256": "0" * 64}) for file in found.files]
    with pytest.raises(Conflict):
        ParquetFolder(local.store.foreign(local.url), forged, found.columns).row_group(0)


WRONG: dict[str, tuple[Callable[[Place], object], str, str]] = {
    "nothing there": (lambda place: None, "URL_UNREADABLE", "no file below it whose name ends in .parquet"),
    "other columns": (
        lambda place: place.write("b.parquet", table(POINTS, ("x", "z"))),
        "INVALID_POINTS",
        "in b.parquet: the file has no column 'y'",
    ),
    "more columns": (
        lambda place: place.write("b.parquet", table(np.ones((3, 3)), ("x", "y", "z"))),
        "INVALID_POINTS",
        "in b.parquet: it has a column 'z' that other files have not",
    ),
    "text": (
        lambda place: place.write("b.parquet", pa.table({"x": [1.0], "y": ["one"]})),
        "INVALID_POINTS",
        "in b.parquet: these columns do not hold numbers: y",
    ),
    "nulls": (
        lambda place: place.write(
            "b.parquet", pa.table({"x": [1.0, 2.0], "y": [1.0, None]}), row_group_size=1
        ),
        "INVALID_POINTS",
        "in b.parquet: row group 1 lacks 1 values of column 'y'",
    ),
    "no Parquet": (
        lambda place: place.put("b.parquet", b"PAR1 nonsense"),
        "INVALID_POINTS",
        "not a Parquet file",
    ),
    "an empty file": (lambda place: place.put("b.parquet", b""), "INVALID_POINTS", "not a Parquet file"),
    "half a file": (
        lambda place: place.put("b.parquet", b"PAR1" + bytes(40) + (30).to_bytes(4, "little") + b"PAR1"),
        "INVALID_POINTS",
        "not a Parquet file",
    ),
    "no points": (
        lambda place: place.write("a.parquet", table(POINTS[:0])),
        "INVALID_POINTS",
        "hold no points",
    ),
    "points of no kind": (
        lambda place: place.write("a.parquet", pa.table({})),
        "INVALID_POINTS",
        "no columns",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_points_is_refused_by_name(local: Place, name: str) -> None:
    spoil, code, message = WRONG[name]
    if name not in ("nothing there", "no points", "points of no kind"):
        local.write("a.parquet", table(POINTS))
    spoil(local)
    with pytest.raises(Unprocessable) as refused:
        local.survey()
    assert refused.value.code == code
    assert message in refused.value.detail


def test_numbers_that_are_none_are_refused_where_they_are(local: Place) -> None:
    rows = POINTS.copy()
    rows[250, 1] = np.nan
    local.write("a.parquet", table(rows), row_group_size=GROUP_ROWS)
    missing = pa.table({"x": [1.0, 2.0, None], "y": [1.0, 2.0, 3.0]})
    local.write("b.parquet", missing, write_statistics=False)
    points = local.opened()
    points.row_group(1)
    with pytest.raises(Unprocessable, match=r"row group 2 of a\.parquet: column 'y' of point 50 is nan"):
        points.row_group(2)
    with pytest.raises(Unprocessable, match=r"row group 0 of b\.parquet: column 'x' of point 2 is missing"):
        points.row_group(10)


def test_data_that_do_not_fit_their_footer_are_refused(local: Place) -> None:
    local.write("a.parquet", table(POINTS), compression="snappy")
    path = Path(local.url.removeprefix("file://")) / "a.parquet"
    content = bytearray(path.read_bytes())
    content[4:2000] = b"\xff" * 1996
    path.write_bytes(content)
    with pytest.raises(Unprocessable, match=r"in row group 0 of a\.parquet"):
        local.opened().row_group(0)


def test_a_row_group_that_no_fit_could_hold_is_refused(local: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.storage.surveys._LARGEST_ROW_GROUP_BYTES", 15_999)
    local.write("a.parquet", table(POINTS))
    with pytest.raises(Unprocessable, match=r"a row group of it takes 16000 bytes"):
        local.survey()


def test_links_lead_nowhere_else(local: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    pq.write_table(table(POINTS), secret / "a.parquet")
    folder = Path(local.url.removeprefix("file://"))
    (folder.parent / "linked").symlink_to(secret)
    (folder / "a.parquet").symlink_to(secret / "a.parquet")
    for url in (f"{local.url.removesuffix('points')}linked", local.url):
        with pytest.raises(Unprocessable) as refused:
            local.survey(url=url)
        assert refused.value.code == "URL_NOT_ALLOWED"


def test_what_is_not_there_or_not_to_be_read(local: Place, query: str, tmp_path: Path) -> None:
    bucket = DatasetStore(tmp_path, prefixes=f"s3://points?{query} s3://no-such-bucket?{query}")
    for store, url in (
        (local.store, f"{local.url}/none"),
        (bucket, "s3://points/none"),
        (bucket, "s3://no-such-bucket/x"),
    ):
        with pytest.raises(Unprocessable) as refused:
            survey(store.foreign(url), None)
        assert refused.value.code == "URL_UNREADABLE"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PermissionError(13, "Permission denied"), 422),
        (OSError(5, "Input/output error"), 503),
        (OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: no"), 422),
        (OSError("When reading: AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: no"), 422),
        (OSError("When reading: AWS Error UNKNOWN (HTTP status 502) during HeadObject operation: no"), 503),
        (OSError("When reading: AWS Error SLOW_DOWN during GetObject operation: slowly"), 503),
        (OSError("When listing: AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), 503),
    ],
)
def test_a_refusal_is_told_from_an_outage(error: OSError, status: int) -> None:
    with pytest.raises(ServiceError) as refused, _answering():
        raise error
    assert refused.value.status == status
