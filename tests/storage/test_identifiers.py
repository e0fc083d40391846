"""Identifiers: ordered, distinct, not to be guessed."""

import time

import pytest

from service.storage import identifiers
from service.storage.identifiers import is_id, new_id


def test_identifiers_of_later_microseconds_sort_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    moments = [now, now + 1_000, now + 1_000_000, now + 10**9, now + 10**18]
    made = []
    for moment in moments:
        monkeypatch.setattr(identifiers.time, "time_ns", lambda moment=moment: moment)
        made.append(new_id("fit"))
    assert made == sorted(made)


def test_identifiers_of_one_microsecond_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identifiers.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = [new_id("fit") for _ in range(10_000)]
    assert len(set(made)) == 10_000
    # 56 bits of time are 11 letters and a bit of the twelfth; 14 letters, 70 bits, are chance alone.
    assert len({one[:15] for one in made}) == 1
    assert len({one[16:] for one in made}) == 10_000


def test_an_identifier_fits_its_column_and_is_recognised() -> None:
    one = new_id("dat")
    assert one.startswith("dat_")
    assert len(one) == 30
    assert is_id(one)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fit_",
        "fit_" + "0" * 25,
        "fit_" + "0" * 27,
        "FIT_" + "0" * 26,
        "fit_" + "u" * 26,
        "fit_" + "0" * 25 + "\0",
        "fit_" + "0" * 26 + "\n",
    ],
)
def test_anything_else_is_not_one(text: str) -> None:
    assert not is_id(text)
