"""A bar that shows how far a fit has come, on a terminal or in a notebook."""

from html import escape
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from service.schemas.fit import FitEvent


class ProgressBar:
    """A live bar on standard error, or in the notebook; a context manager.

    Args:
        wanted: None shows it where there is a terminal or a notebook to show it in.
    """

    def __init__(self, wanted: bool | None) -> None:
        console = Console(stderr=True)
        shown = console.is_terminal or console.is_jupyter if wanted is None else wanted
        self._cell = _NotebookCell() if shown and console.is_jupyter else None
        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(36),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}"),
            console=console,
            disable=not shown or self._cell is not None,
        )
        self._task = self._progress.add_task("queued", total=1.0, now="")
        self._done = 0.0
        self._draw()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, event: FitEvent) -> None:
        """Takes an event into account."""
        if event.type == "status":
            self.status(event.data["status"])
        elif event.type == "progress":
            self.advance(event.data)

    def status(self, status: str) -> None:
        """Shows a fit's status."""
        completed = 1.0 if status == "succeeded" else self._done
        self._progress.update(self._task, description=status, completed=completed)
        self._draw()

    def advance(self, progress: dict[str, Any]) -> None:
        """Shows how far a fit has come: restarts run side by side or one after the other."""
        steps = progress["step"] / max(progress["max_steps"], 1)
        restarts = progress["restarts_done"] / max(progress["n_init"], 1)
        self._done = min(1.0, max(self._done, steps, restarts))
        self._progress.update(self._task, completed=self._done, now=_now(progress))
        self._draw()

    def _draw(self) -> None:
        if self._cell is not None:
            task = self._progress.tasks[0]
            self._cell.draw(task.completed, f"{task.description} {task.fields['now']}")


class _NotebookCell:
    """A bar below a notebook's cell; rich's own needs widgets, which many notebooks have not."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle  # only a notebook has it, and always

        self._handle = DisplayHandle()
        self._handle.display({"text/plain": ""}, raw=True)

    def draw(self, done: float, text: str) -> None:
        """Shows the share that is done and a text, in place of those before."""
        bar = f'<progress value="{done:.3f}" max="1" aria-label="fit"></progress> {escape(text)}'
        self._handle.update({"text/html": bar, "text/plain": f"{done:.0%} {text}"}, raw=True)


def _now(progress: dict[str, Any]) -> str:
    best = progress["log_likelihood"]
    log_likelihood = f", log-likelihood {best:.2f}" if isinstance(best, float) else ""
    restarts = f"{progress['restarts_done']} of {progress['n_init']} restarts"
    return f"step {progress['step']}, {restarts}{log_likelihood}"
