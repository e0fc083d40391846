"""Idempotency keys: one call creates, the others get its answer."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.errors import Conflict, ServiceError, Unprocessable
from service.storage import idempotency
from service.storage.database import Database
from service.storage.idempotency import SERVING_SECONDS, StoredAnswer
from service.storage.owners import LOCAL
from service.storage.tables import IdempotencyKeyRow

DAY = 86_400.0
ANSWER = StoredAnswer(201, {"Location": "/v1/fits/x"}, b'{"id": "\xc3\xbc"}')


def _begin(
    database: Database, holder: str, *, key: str = "key", sha256: str = "a" * 64
) -> StoredAnswer | None:
    return idempotency.begin(database, key, sha256, holder, DAY)


def _complete(database: Database, holder: str, answer: StoredAnswer = ANSWER) -> None:
    with database.write() as session:
        idempotency.complete(session, "key", holder, answer)


def _age(database: Database, seconds: float) -> None:
    with database.write() as session:
        row = session.get_one(IdempotencyKeyRow, (LOCAL, "key"))
        aged = row.created_at - timedelta(seconds=seconds)
        session.execute(
            update(IdempotencyKeyRow).where(IdempotencyKeyRow.key == "key").values(created_at=aged)
        )


def test_the_first_call_holds_the_key_and_the_next_gets_its_answer(database: Database) -> None:
    assert _begin(database, "one") is None
    _complete(database, "one")
    assert _begin(database, "two") == ANSWER
    assert _begin(database, "three") == ANSWER
    assert _begin(database, "four", key="another key") is None


def test_a_key_being_served_is_in_use(database: Database) -> None:
    _begin(database, "one")
    with pytest.raises(Conflict) as refused:
        _begin(database, "two")
    assert (refused.value.status, refused.value.code) == (409, "IDEMPOTENCY_KEY_IN_USE")
    assert refused.value.headers["Retry-After"] == "1"


@pytest.mark.parametrize("answered", [False, True])
def test_a_key_is_for_one_request(database: Database, answered: bool) -> None:
    _begin(database, "one")
    if answered:
        _complete(database, "one")
    with pytest.raises(Unprocessable) as refused:
        _begin(database, "two", sha256="b" * 64)
    assert (refused.value.status, refused.value.code) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_an_abandoned_key_can_be_used_again(database: Database) -> None:
    _begin(database, "one")
    idempotency.abandon(database, "key", "one")
    assert _begin(database, "two", sha256="b" * 64) is None
    idempotency.abandon(database, "key", "one")  # no longer its own
    with pytest.raises(Conflict):
        _begin(database, "three", sha256="b" * 64)


def test_an_answer_is_not_abandoned(database: Database) -> None:
    _begin(database, "one")
    _complete(database, "one")
    idempotency.abandon(database, "key", "one")
    assert _begin(database, "two") == ANSWER


def test_an_answer_comes_with_what_it_tells_of_or_not_at_all(database: Database) -> None:
    _begin(database, "one")

    def fail() -> None:
        with database.write() as session:
            idempotency.complete(session, "key", "one", ANSWER)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(Conflict):
        _begin(database, "two")


def test_a_dead_holder_is_overtaken_and_can_no_longer_complete(database: Database) -> None:
    _begin(database, "dead")
    _age(database, SERVING_SECONDS - 5)
    with pytest.raises(Conflict):
        _begin(database, "early")
    _age(database, 10)
    assert _begin(database, "next") is None
    with pytest.raises(Conflict):
        _complete(database, "dead", StoredAnswer(201, {}, b"late"))
    idempotency.abandon(database, "key", "dead")
    _complete(database, "next")
    assert _begin(database, "third") == ANSWER


def test_an_answer_is_kept_for_its_time_and_not_longer(database: Database) -> None:
    _begin(database, "one")
    _complete(database, "one")
    _age(database, DAY - 5)
    assert _begin(database, "two") == ANSWER
    _age(database, 10)
    assert _begin(database, "three", sha256="b" * 64) is None


def test_a_call_that_says_it_is_still_served_keeps_its_key(database: Database) -> None:
    _begin(database, "one")
    _age(database, SERVING_SECONDS + 1)
    idempotency.renew(database, {"key": "one", "another key": "two"})
    with pytest.raises(Conflict):
        _begin(database, "two")
    _age(database, SERVING_SECONDS + 1)
    idempotency.renew(database, {"key": "another"})
    assert _begin(database, "two") is None


def test_of_many_calls_at_once_one_holds_the_key(database: Database) -> None:
    def call(index: int) -> str:
        try:
            answer = _begin(database, f"holder {index}")
        except ServiceError as error:
            return error.code
        if answer is not None:
            return "replayed"
        _complete(database, f"holder {index}")
        return "created"

    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(call, range(24)))
    assert codes.count("created") == 1
    assert set(codes) <= {"created", "replayed", "IDEMPOTENCY_KEY_IN_USE"}


def test_a_key_that_is_freed_meanwhile_is_held_or_in_use(database: Database) -> None:
    def come_and_go(index: int) -> set[str]:
        seen = set()
        for _ in range(15):
            try:
                _begin(database, f"holder {index}")
            except ServiceError as error:
                seen.add(error.code)
            else:
                idempotency.abandon(database, "key", f"holder {index}")
        return seen

    with ThreadPoolExecutor(4) as threads:
        for seen in threads.map(come_and_go, range(4)):
            assert seen <= {"IDEMPOTENCY_KEY_IN_USE"}
