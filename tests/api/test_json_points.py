"""Points as JSON, read piece by piece as they would be read at once."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from service.api import json_points
from service.api.bodies import parse
from service.api.json_points import POINTS, WEIGHTS, posted
from service.codecs.spooled import Spooled
from service.errors import Unprocessable
from service.schemas.dataset import DatasetReference
from service.schemas.mixture import PointsBody

ROWS = np.random.default_rng(0).normal(size=(300, 3)).tolist()
TEXT = json.dumps({"points": ROWS})


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_points, "_PIECE_BYTES", 200)
    monkeypatch.setattr(json_points, "_WHOLE_BYTES", 0)


def points_of(text: str) -> Any:
    return points_of_body(Spooled(text.encode()))


def points_of_body(body: Spooled) -> Any:
    chunks = posted(PointsBody, body, POINTS).points(("points",))
    assert chunks is not None
    return np.concatenate(list(chunks))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps({"points": ROWS}, indent=2),
        json.dumps({"points": ROWS, "columns": ["a", "b", "c"]}),
        TEXT.replace(", ", ","),
        TEXT.replace("[[", "[ [ 1 , 2 ,\t3 ]\r\n ,[ "),
        " \n" + TEXT + "\n ",
        json.dumps({"columns": ["]", '\\"[[', "c,:{"], "points": ROWS}),
    ],
)
def test_what_is_right_is_read(text: str) -> None:
    expected = np.array(json.loads(text)["points"])
    np.testing.assert_array_equal(points_of(text), expected)


def _changed(index: int, column: int, value: str) -> str:
    rows = [[repr(number) for number in row] for row in ROWS]
    rows[index][column] = value
    return '{"points": [' + ", ".join("[" + ", ".join(row) + "]" for row in rows) + "]}"


@pytest.mark.parametrize(
    "text",
    [
        *(_changed(250, 1, value) for value in ("NaN", "1e999", '"1"', "true", "null", "[1]", "", "1, 2")),
        _changed(250, 1, "9" * 5000),
        _changed(299, 2, "1]], [[2"),
        TEXT[:-1],
        TEXT[:-2],
        TEXT + "]",
        TEXT.replace("], [", "] [", 250),
        TEXT.replace("], [", "],, [", 250),
        TEXT.replace("]]}", "],]}"),
        TEXT.replace("]]}", "], []]}"),
        TEXT.replace("]]}", "], [1, 2]]}"),
        TEXT.replace("]]}", '], [1, 2, 3]], "more": 1}'),
        TEXT.replace("]]}", "], [1, 2, 3]] 7}"),
        json.dumps({"points": [[[1]] * 300]}),
        '{"points": [' + "]" * 1000 + "]}",
        '{"points": [' + " " * 1000 + "]}",
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_the_same_words(text: str) -> None:
    with pytest.raises(Unprocessable) as at_once:
        parse(PointsBody, text.encode())
    with pytest.raises(Unprocessable) as by_pieces:
        points_of(text)
    if "Invalid JSON" in at_once.value.detail or "[[[" in text:
        assert by_pieces.value.code in ("INVALID_REQUEST", "BODY_TOO_COMPLEX")
    else:
        assert by_pieces.value.detail == at_once.value.detail
        assert by_pieces.value.errors == at_once.value.errors


def weights_of(text: str) -> Any:
    body = posted(DatasetReference, Spooled(text.encode()), {**POINTS, **WEIGHTS})
    chunks = body.weights(("weights",))
    assert chunks is not None
    return np.concatenate(list(chunks))[:, 0]


def test_weights_are_read_piece_by_piece() -> None:
    weights = np.random.default_rng(1).uniform(size=300).tolist()
    np.testing.assert_array_equal(weights_of(json.dumps({"id": "x", "weights": weights})), weights)


@pytest.mark.parametrize("wrong", ["-1", "NaN", '"1"', "true", "[1]"])
def test_a_wrong_weight_is_refused_with_its_place(wrong: str) -> None:
    text = '{"id": "x", "weights": [' + "1, " * 299 + wrong + "]}"
    with pytest.raises(Unprocessable) as refused:
        weights_of(text)
    assert refused.value.errors[0].path == ("weights", 299) or "not JSON" in refused.value.detail


def test_weights_that_are_all_zero_are_refused() -> None:
    with pytest.raises(Unprocessable, match="all zero"):
        weights_of('{"id": "x", "weights": [' + "0, " * 299 + "0]}")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"points": [[' + "1," * (1 << 20) + "1]]}", "one item of points takes more than 1048576 bytes"),
        ('{"name": "' + "a" * (1 << 21) + '"}', "a string in it takes more than 1048576 bytes"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested more than 64 deep"),
        ('{"a": [' + "[]," * (1 << 17) + "[]]}", "more than 65536 lists and objects"),
        ('{"a": [' + "1," * (1 << 21) + "1]}", "more than 1048576 values beside points"),
        ('{"a": [' + " " * (25 << 20) + "]}", "more than 25165824 bytes beside points"),
        ('{"points": [[1]], "points": [[1]]}', "points is there twice"),
        ('{"points": [[1]]}]', "closed that was not open"),
    ],
    ids=["row", "string", "deep", "lists", "values", "blanks", "twice", "closed"],
)
def test_what_would_take_much_memory_is_refused(text: str, what: str) -> None:
    tracemalloc.start()
    body = Spooled(text.encode())
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    with pytest.raises(Unprocessable, match=what):
        points_of_body(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 60 << 20
