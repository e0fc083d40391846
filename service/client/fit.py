"""A fit that has been asked for: waiting for it, watching it, stopping it."""

import time
from typing import Generic, TypeVar

from service.client.calls import Call, Caller, nothing, path, reading
from service.client.events import follow
from service.client.mixture import AsyncMixture, Mixture
from service.client.problems import FitUnsuccessful
from service.client.progress import ProgressBar
from service.client.steps import Async, Items, Steps, Sync, each, operation, stream
from service.schemas import fit as schemas
from service.schemas import mixture as mixture_schemas

M = TypeVar("M", Mixture, AsyncMixture)


class _Fit(Generic[M]):
    """What a fit is and can do, whichever way it is waited for.

    Attributes:
        info: What the service said about it last.
    """

    _mixture_kind: type[M]

    def __init__(self, caller: Caller, info: schemas.Fit) -> None:
        self._caller = caller
        self.info = info

    @property
    def id(self) -> str:
        """Its id."""
        return self.info.id

    @property
    def status(self) -> schemas.FitStatus:
        """queued, running, succeeded, failed or cancelled, as the service said last."""
        return self.info.status

    @property
    def result(self) -> schemas.FitResult:
        """What the fit ended in.

        Raises:
            FitUnsuccessful: It failed or was cancelled.
            RuntimeError: It has not ended, or it has since `wait()` was called last.
        """
        if self.info.result is not None:
            return self.info.result
        if self.info.status in schemas.FINAL_STATUSES:
            raise FitUnsuccessful(self.info)
        raise RuntimeError(f"{self.id} was {self.status} when last heard of; wait() for it")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.status}>"

    @operation
    def refresh(self) -> Steps[schemas.Fit]:
        """Returns the fit as it stands now."""
        self.info = yield from self._caller.answer(self._call("GET"))
        return self.info

    @operation
    def wait(
        self, timeout_seconds: float | None = None, *, progress: bool | None = None
    ) -> Steps[schemas.FitResult]:
        """Returns what the fit ends in, with a progress bar on the way.

        Args:
            timeout_seconds: How long to wait, about; None for as long as it takes. The fit goes on.
            progress: Whether to show the bar; None shows it on a terminal and in a notebook.

        Raises:
            FitUnsuccessful: It failed or was cancelled.
            TimeoutError: It has not ended in time.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        if self.info.status not in schemas.FINAL_STATUSES:
            with ProgressBar(progress) as bar:
                yield from each(follow(self._caller, self.id, deadline=deadline), bar.show)
            self.info = yield from self._caller.answer(self._call("GET"))
        if self.info.status not in schemas.FINAL_STATUSES:
            raise TimeoutError(f"{self.id} is {self.status} after {timeout_seconds} s; it goes on")
        return self.result

    @operation
    def cancel(self) -> Steps[schemas.Fit]:
        """Cancels the fit: a queued one at once, a running one within 2 s. An ended one stays as it is."""
        self.info = yield from self._caller.answer(self._call("POST", "cancel"))
        return self.info

    @stream
    def events(self, last_event_id: int = 0) -> Items[schemas.FitEvent]:
        """Emits what happens to the fit, from after an event on until it has ended.

        A connection that breaks is opened again, and nothing is missed or told twice.
        """
        yield from follow(self._caller, self.id, last_event_id)

    @operation
    def mixture(self) -> Steps[M]:
        """Returns the mixture that the fit ended in.

        Raises:
            FitUnsuccessful: It failed or was cancelled.
            RuntimeError: It has not ended, or it has since `wait()` was called last.
        """
        call = Call("GET", path("mixtures", self.result.mixture_id), reading(mixture_schemas.Mixture))
        info = yield from self._caller.answer(call)
        return self._mixture_kind(self._caller, info)

    @operation
    def delete(self) -> Steps[None]:
        """Deletes the fit, which must have ended. Its mixture stays."""
        yield from self._caller.answer(Call("DELETE", path("fits", self.id), nothing))

    def _call(self, method: str, *more: str) -> Call[schemas.Fit]:
        return Call(method, path("fits", self.id, *more), reading(schemas.Fit))


class Fit(_Fit[Mixture], Sync):
    """A fit; its methods block."""

    _mixture_kind = Mixture

    def __init__(self, caller: Caller, info: schemas.Fit) -> None:
        super().__init__(caller, info)
        self._http = caller.http


class AsyncFit(_Fit[AsyncMixture], Async):
    """A fit; its methods are awaited."""

    _mixture_kind = AsyncMixture

    def __init__(self, caller: Caller, info: schemas.Fit) -> None:
        super().__init__(caller, info)
        self._http = caller.http
