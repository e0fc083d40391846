"""Writers of one process that wait at the same time go together: one transaction, one wait for the disk."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

Answer = TypeVar("Answer")
# Begins and commits a session of its own within a transaction that others share.
Within = Callable[[Connection], AbstractContextManager[Session]]

# Others of the machine wait meanwhile, so that there is an end to it.
_MOST = 64


@dataclass(eq=False)
class _Wish:
    act: Callable[[Session], Any]
    context: Context = field(default_factory=copy_context)
    answer: Future[Any] = field(default_factory=Future)


class Together:
    """Does what several threads want to write in one transaction, each within a savepoint of its own.

    Whoever comes first writes for all who wait by then. One whose act fails loses nothing but its own.

    Args:
        transaction: Begins a transaction, and commits it unless an exception passes through.
        within: Begins a session in it.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Connection]], within: Within) -> None:
        self._transaction = transaction
        self._within = within
        self._turn = threading.Lock()
        self._waiting: list[_Wish] = []

    def write(self, act: Callable[[Session], Answer]) -> Answer:
        """Returns what the act returns, once it has been committed.

        Raises:
            Exception: What the act raises, or the transaction.
        """
        wish = _Wish(act)
        self._waiting.append(wish)
        with self._turn:
            while not wish.answer.done():
                self._write(self._taken())
        return wish.answer.result()  # type: ignore[no-any-return]

    def _taken(self) -> list[_Wish]:
        taken = self._waiting[:_MOST]
        del self._waiting[: len(taken)]
        return taken

    def _write(self, wishes: list[_Wish]) -> None:
        answers: list[tuple[_Wish, Any]] = []
        try:
            with self._transaction() as connection:
                for wish in wishes:
                    try:
                        answers.append((wish, wish.context.run(self._done, connection, wish)))
                    except DBAPIError:
                        raise  # who knows what is left of the transaction
                    except Exception as error:  # noqa: BLE001 - raised where the wish came from
                        wish.answer.set_exception(error)
        except BaseException as error:  # noqa: BLE001 - raised where the wishes came from
            for wish in wishes:
                if not wish.answer.done():
                    wish.answer.set_exception(error)
        else:
            for wish, answer in answers:
                wish.answer.set_result(answer)

    def _done(self, connection: Connection, wish: _Wish) -> Any:
        with self._within(connection) as session:
            return wish.act(session)
