"""The events of a fit, as they happen, over as many connections as it takes."""

import time

import httpx

from service.client.calls import Call, Caller, again_after, nothing, path, unreachable
from service.client.steps import Emit, Items, Line, Open, Sleep
from service.schemas.fit import FINAL_STATUSES, FitEvent

_SILENCE_SECONDS = 45.0  # three pings
_SHORTEST_SECONDS = 0.2
_NO_MORE = 204


def follow(
    caller: Caller, fit_id: str, last_event_id: int = 0, deadline: float | None = None
) -> Items[FitEvent]:
    """Emits the events behind an id until the fit has ended, going on where a broken connection stopped.

    Args:
        caller: What sends requests.
        fit_id: The fit.
        last_event_id: The last event seen; 0 for none.
        deadline: On the monotonic clock; it ends soon after that.

    Raises:
        Problem: The service refused it.
        ServiceUnreachable: The connection broke again and again without an event between.
    """
    seen, pauses = last_event_id, caller.pauses()
    while deadline is None or time.monotonic() < deadline:
        try:
            response: httpx.Response = yield Open(_request(caller, fit_id, seen, deadline))
            if response.status_code == _NO_MORE:
                return
            wait, broken = again_after(response), "the stream ended before the fit"
            parser = _Parser()
            while (line := (yield Line())) is not None:
                event = parser.feed(line)
                if event is not None and event.id > seen:
                    seen, pauses = event.id, caller.pauses()
                    yield Emit(event)
                    if event.type == "status" and event.data["status"] in FINAL_STATUSES:
                        return
                if deadline is not None and time.monotonic() >= deadline:
                    return
        except httpx.ReadTimeout:
            if deadline is not None:
                continue  # it was only to look at the clock
            wait, broken = 0.0, "it says nothing, not even that it is there"
        except httpx.TransportError as error:
            wait, broken = 0.0, str(error)
        pause = next(pauses)
        if pause is None:
            raise unreachable(caller.http, broken)
        yield Sleep(wait + pause)


def _request(caller: Caller, fit_id: str, seen: int, deadline: float | None) -> httpx.Request:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(seen)} if seen else {})
    silence = _SILENCE_SECONDS
    if deadline is not None:  # looks up now and then, and the more often the nearer it comes
        silence = min(silence, max(_SHORTEST_SECONDS, (deadline - time.monotonic()) / 4))
    timeout = httpx.Timeout(**caller.http.timeout.as_dict() | {"read": silence})
    return caller.request(
        Call("GET", path("fits", fit_id, "events"), nothing, headers=headers), timeout=timeout
    )


class _Parser:
    """Puts lines of a stream together into events."""

    def __init__(self) -> None:
        self._data: list[str] = []

    def feed(self, line: str) -> FitEvent | None:
        """Returns the event that this line ends, if it ends one."""
        if line.startswith("data:"):
            self._data.append(line.removeprefix("data:").removeprefix(" "))
        if line or not self._data:
            return None
        text, self._data = "\n".join(self._data), []
        return FitEvent.model_validate_json(text, extra="ignore")
