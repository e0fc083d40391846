"""One text for two clients: operations are generators that ask for input and output, and drivers do it.

A generator yields what it wants done (`Send`, `Open`, `Line`, `Sleep`) and is sent what came of it, or thrown
the error. The synchronous driver blocks, the other awaits; nothing else differs between the two clients.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

import anyio
import httpx

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class Send:
    """Wants a request sent and its answer read: an `httpx.Response`."""

    request: httpx.Request


@dataclass(frozen=True)
class Open:
    """Wants a request sent and the head of its answer: an `httpx.Response` whose lines are still to come.

    A refusal has been read whole. What was opened before is closed.
    """

    request: httpx.Request


@dataclass(frozen=True)
class Line:
    """Wants the next line of the answer opened last: a `str`, None at its end."""


@dataclass(frozen=True)
class Sleep:
    """Wants time to pass, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hands an item of a stream to whoever iterates over it."""

    item: T


Effect: TypeAlias = Send | Open | Line | Sleep
Steps: TypeAlias = Generator[Effect, Any, T]
Items: TypeAlias = Generator[Effect | Emit[T], Any, None]


def each(items: Items[T], take: Callable[[T], None]) -> Steps[None]:
    """Hands every item of a stream to a function."""
    try:
        wanted = next(items)
        while True:
            if isinstance(wanted, Emit):
                take(wanted.item)
                wanted = next(items)
                continue
            try:
                done = yield wanted
            except httpx.TransportError as error:
                wanted = items.throw(error)
            else:
                wanted = items.send(done)
    except StopIteration:
        return


class Sync:
    """Something whose operations block."""

    _http: Any

    def run(self, steps: Steps[T]) -> T:
        """Returns the result of steps."""
        items = self.iterate(steps)
        while True:
            try:
                next(items)
            except StopIteration as end:
                result: T = end.value
                return result

    def iterate(self, steps: Generator[Any, Any, Any]) -> Generator[Any, None, Any]:
        """Yields what steps emit."""
        opened = _Opened()
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Emit):
                    yield wanted.item
                    wanted = next(steps)
                    continue
                try:
                    done = self._do(wanted, opened)
                except httpx.TransportError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(done)
        except StopIteration as end:
            return end.value
        finally:
            if opened.response is not None:
                opened.response.close()
            steps.close()

    def _do(self, wanted: Effect, opened: "_Opened") -> Any:
        match wanted:
            case Send():
                return self._http.send(wanted.request)
            case Open():
                if opened.response is not None:
                    opened.response.close()
                opened.response = self._http.send(wanted.request, stream=True)
                if not opened.response.is_success:
                    opened.response.read()
                opened.lines = opened.response.iter_lines()
                return opened.response
            case Line():
                return next(opened.lines, None)
            case Sleep():
                time.sleep(wanted.seconds)
        return None


class Async:
    """Something whose operations are awaited."""

    _http: Any

    async def run(self, steps: Steps[T]) -> T:
        """Returns the result of steps."""
        result: Any = None

        def kept() -> Generator[Effect, Any, None]:
            nonlocal result
            result = yield from steps

        async for _ in self.iterate(kept()):
            pass
        return result  # type: ignore[no-any-return]

    async def iterate(self, steps: Generator[Any, Any, Any]) -> AsyncIterator[Any]:
        """Yields what steps emit."""
        opened = _Opened()
        try:
            wanted = next(steps)
            while True:
                if isinstance(wanted, Emit):
                    yield wanted.item
                    wanted = next(steps)
                    continue
                try:
                    done = await self._do(wanted, opened)
                except httpx.TransportError as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(done)
        except StopIteration:
            return
        finally:
            if opened.response is not None:
                await opened.response.aclose()
            steps.close()

    async def _do(self, wanted: Effect, opened: "_Opened") -> Any:
        match wanted:
            case Send():
                return await self._http.send(wanted.request)
            case Open():
                if opened.response is not None:
                    await opened.response.aclose()
                opened.response = await self._http.send(wanted.request, stream=True)
                if not opened.response.is_success:
                    await opened.response.aread()
                opened.lines = opened.response.aiter_lines()
                return opened.response
            case Line():
                return await anext(opened.lines, None)
            case Sleep():
                await anyio.sleep(wanted.seconds)
        return None


@dataclass
class _Opened:
    response: Any = None
    lines: Any = None


class operation(Generic[P, T]):  # noqa: N801 - used as a decorator
    """A method written once, as steps: on a `Sync` it returns their result, on an `Async` an awaitable."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Steps[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, instance: Sync, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Async, owner: type) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> "operation[P, T]": ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Returns the bound method."""
        if instance is None:
            return self
        return _bound(self._steps, instance, lambda steps: instance.run(steps))


class stream(Generic[P, T]):  # noqa: N801 - used as a decorator
    """A method written once that emits items: an iterator on a `Sync`, an asynchronous one on an `Async`."""

    def __init__(self, steps: Callable[Concatenate[Any, P], Items[T]]) -> None:
        self._steps = steps
        self.__doc__ = steps.__doc__

    @overload
    def __get__(self, instance: Sync, owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Async, owner: type) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, instance: None, owner: type) -> "stream[P, T]": ...
    def __get__(self, instance: Any, owner: type) -> Any:
        """Returns the bound method."""
        if instance is None:
            return self
        return _bound(self._steps, instance, lambda steps: instance.iterate(steps))


def _bound(steps: Callable[..., Any], instance: Any, run: Callable[[Any], Any]) -> Callable[..., Any]:
    method = steps.__get__(instance)

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return run(method(*arguments, **named))

    return call
