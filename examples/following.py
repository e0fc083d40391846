"""Submits a fit and shows how far it has come, from the service's events."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_SECONDS = 1.0
_FINAL = ("succeeded", "failed", "cancelled")


class FitFailed(Exception):
    """The fit did not succeed; the message says why."""


def fit(http: httpx.Client, console: Console, body: dict[str, Any]) -> dict[str, Any]:
    """The fit once it has succeeded, with its progress shown on the way.

    Raises:
        FitFailed: it ended otherwise.
        httpx.HTTPStatusError: the service refused it.
    """
    submitted = checked(http.post("/v1/fits", json=body))
    if console.is_terminal:
        _show_bar(http, console, submitted["id"])
    else:
        _show_lines(http, console, submitted["id"])
    ended = checked(http.get(f"/v1/fits/{submitted['id']}"))
    if ended["status"] != "succeeded":
        raise FitFailed(
            f"the fit was {ended['status']}: {(ended['error'] or {}).get('message', 'no reason given')}"
        )
    return ended


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer.

    Raises:
        httpx.HTTPStatusError: with the problem's detail in its message.
    """
    content: dict[str, Any] = answer.json()
    if answer.is_error:
        raise httpx.HTTPStatusError(
            content.get("detail", answer.reason_phrase), request=answer.request, response=answer
        )
    return content


def events(http: httpx.Client, fit_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Type and data of every event of a fit, as they happen, until it has ended."""
    headers = {"Accept": "text/event-stream"}
    with http.stream("GET", f"/v1/fits/{fit_id}/events", headers=headers) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if not line.startswith("data: "):
                continue
            event = json.loads(line.removeprefix("data: "))
            yield event["type"], event["data"]
            if event["type"] == "status" and event["data"]["status"] in _FINAL:
                return


def _show_bar(http: httpx.Client, console: Console, fit_id: str) -> None:
    columns = (
        TextColumn("  {task.description:<9}"),
        BarColumn(36),
        TimeElapsedColumn(),
        TextColumn("{task.fields[now]}"),
    )
    done = 0.0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("queued", total=1.0, now="")
        for kind, data in events(http, fit_id):
            if kind == "status":
                progress.update(task, description=data["status"])
            elif kind == "progress":
                done = max(done, _share(data))
                progress.update(task, completed=done, now=_now(data))
        progress.update(task, completed=1.0)


def _show_lines(http: httpx.Client, console: Console, fit_id: str) -> None:
    last = 0.0
    for kind, data in events(http, fit_id):
        if kind == "status":
            console.print(f"  {data['status']}")
        elif kind == "progress" and time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            console.print(f"  {_now(data)}")


def _share(progress: dict[str, Any]) -> float:
    """How much of the work is done: restarts run side by side or one after the other."""
    return float(
        max(progress["step"] / progress["max_steps"], progress["restarts_done"] / progress["n_init"])
    )


def _now(progress: dict[str, Any]) -> str:
    best = progress["log_likelihood"]
    log_likelihood = f", log-likelihood {best:.2f}" if isinstance(best, float) else ""
    return (
        f"step {progress['step']} of at most {progress['max_steps']}, "
        f"{progress['restarts_done']} of {progress['n_init']} restarts done{log_likelihood}"
    )
