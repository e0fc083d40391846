"""Long work before and after the steps of a fit, piece by piece: no more than one of them is ever lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from service.mixture.journal import Entry, Journal

# The state after a step, and whether there is nothing more to be done.
Step = Callable[[Entry, int], tuple[Entry, bool]]
Ask = Callable[[], str | None]


class Interrupted(Exception):
    """The fit was asked to end between two pieces; ``outcome`` is what it was asked to end with."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Pieces:
    """Work in steps whose state the journal keeps.

    Args:
        journal: of the fit; None keeps nothing.
        name: in the journal, before the names of all pieces.
        ask: answers with the outcome to end with, or None to go on.
    """

    def __init__(self, journal: Journal | None = None, name: str = "", ask: Ask = lambda: None) -> None:
        self.journal = journal or Journal()
        self._name = name
        self._ask = ask

    def under(self, name: str) -> Pieces:
        """The same with more of the name given."""
        return Pieces(self.journal, f"{self._name}{name}/", self._ask)

    def result(self, name: str, begin: Callable[[], Entry], step: Step, n_steps: int) -> Entry:
        """The state after so many steps, from the beginning or from where the journal says.

        Args:
            name: of the piece.
            begin: the state before the first step, arrays by name.
            step: takes the state and the number of steps before; says when all others would change nothing.
            n_steps: how many there are at most.

        Raises:
            Interrupted: the fit was asked to end.
        """
        name = f"{self._name}{name}"
        finished = self.journal.finished(name)
        if finished is not None:
            return finished
        state = self.journal.running(name)
        first = 0 if state is None else int(state["n_steps"])
        state = begin() if state is None else state
        for i in range(first, n_steps):
            self._between(name, state, i)
            state, ended = step(state, i)
            if ended:
                break
        self.journal.finish(name, state)
        return state

    def _between(self, name: str, state: Entry, n_steps: int) -> None:
        def entry() -> Entry:
            return {**state, "n_steps": np.array(n_steps)}

        asked = self._ask()
        if asked is None:
            self.journal.offer(name, entry)
            return
        if asked == "released":
            self.journal.write(name, entry)
        raise Interrupted(asked)
