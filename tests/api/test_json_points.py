"""Points as JSON, read piece by piece as they would be read at once."""

import json

import numpy as np
import pytest

from service.api import json_points
from service.api.bodies import parse
from service.api.json_points import points_of_json
from service.errors import Unprocessable
from service.schemas.mixture import PointsBody

ROWS = np.random.default_rng(0).normal(size=(300, 3)).tolist()
TEXT = json.dumps({"points": ROWS})


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_points, "_PIECE_BYTES", 200)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        json.dumps({"points": ROWS}, indent=2),
        json.dumps({"points": ROWS, "columns": ["a", "b", "c"]}),
        TEXT.replace(", ", ","),
        TEXT.replace("[[", "[ [ 1 , 2 ,\t3 ]\r\n ,[ "),
        " \n" + TEXT + "\n ",
    ],
)
def test_what_is_right_is_read(text: str) -> None:
    expected = np.array(json.loads(text)["points"])
    np.testing.assert_array_equal(points_of_json(text.encode()).rows, expected)


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
        points_of_json(text.encode())
    assert by_pieces.value.detail == at_once.value.detail
    assert by_pieces.value.errors == at_once.value.errors
