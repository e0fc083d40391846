"""What a fit has done so far, kept so that another process goes on from there to the same numbers."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.mixture.components import Components
from service.mixture.invalid import InvalidFit

FORMAT = 3
# Where writing would take more than this share of the time, checkpoints are up to so many times as far apart.
WRITING_SHARE, STRETCH = 0.1, 2.0
_PARTS = ("log_weights", "means", "precisions_cholesky")
_NOTE = "note"

Entry = dict[str, Any]
"""Named numbers, arrays or tensors, that together say what a piece of a fit came to, or how far it is."""


@dataclass(frozen=True, eq=False)
class RestartEnd:
    """How one restart ended.

    Attributes:
        components: R = 1, where it stood.
        outcome: converged, max_steps_reached, collapsed, non_finite, left_behind, or one of `ASKED`.
        n_steps: updates of its parameters.
        n_passes: passes over the data.
    """

    components: Components
    outcome: str
    n_steps: int
    n_passes: float


@dataclass(eq=False)
class Loop:
    """The state of a loop over restarts between two steps.

    Attributes:
        state: of the optimiser, its rows the running restarts.
        running: the places of those restarts.
        ends: of every restart, None while it runs.
        windows: what the stopping rule of each running restart remembers.
        n_steps: steps done.
        best: the best mean objective so far.
    """

    state: dict[str, Tensor]
    running: list[int]
    ends: list[RestartEnd | None]
    windows: list[list[float]]
    n_steps: int
    best: float


class Journal:
    """Keeps what finished pieces of a fit came to and how far the running one is, by name.

    Args:
        fit: what tells this fit from another, ready for JSON.
        checkpoint: takes the bytes of a checkpoint, at most every ``seconds``; None keeps nothing.
        resume: bytes of an earlier checkpoint of the same fit, or None to start afresh.
        seconds: the least time between two checkpoints; up to twice that where they take long to write.
        device: where the tensors of a resumed loop go.

    Raises:
        InvalidFit: when ``resume`` is no checkpoint of this fit.
    """

    def __init__(
        self,
        fit: Any = None,
        checkpoint: Callable[[bytes], None] | None = None,
        resume: bytes | None = None,
        seconds: float = 5.0,
        device: str = "cpu",
    ) -> None:
        self._fit = json.loads(json.dumps(fit))
        self._checkpoint = checkpoint
        self._seconds = self._pause = seconds
        self._device = device
        self._written = self._started = time.monotonic()
        self._finished: dict[str, Entry] = {}
        self._running: tuple[str, Entry] | None = None
        self._elapsed_before = 0.0
        if resume is not None:
            self._read(resume)

    def elapsed_seconds(self) -> float:
        """Time spent on this fit, that of the processes before included."""
        return self._elapsed_before + time.monotonic() - self._started

    def finished(self, name: str) -> Entry | None:
        """What the piece of that name came to, if it has finished."""
        return self._finished.get(name)

    def running(self, name: str) -> Entry | None:
        """How far the piece of that name was, if it was the one running."""
        return self._running[1] if self._running is not None and self._running[0] == name else None

    def finish(self, name: str, entry: Entry, *, forget: str | None = None) -> None:
        """Notes what a piece came to, in place of all those whose names begin with ``forget``."""
        if self._checkpoint is None:
            return
        if forget is not None:
            self._finished = {
                known: what for known, what in self._finished.items() if not known.startswith(forget)
            }
        self._finished[name] = entry

    def offer(self, name: str, entry: Callable[[], Entry]) -> None:
        """Writes a checkpoint of the running piece if it is time."""
        if time.monotonic() - self._written >= self._pause:
            self.write(name, entry)

    def write(self, name: str, entry: Callable[[], Entry]) -> None:
        """Writes a checkpoint of the running piece at once."""
        if self._checkpoint is None:
            return
        begun = time.monotonic()
        self._checkpoint(self._bytes(name, entry()))
        self._written = time.monotonic()
        wished = (self._written - begun) / WRITING_SHARE
        self._pause = min(STRETCH * self._seconds, max(self._seconds, wished))

    def ends(self, name: str) -> list[RestartEnd] | None:
        """The ends of the loop of that name, if it has finished."""
        entry = self.finished(name)
        if entry is None:
            return None
        return [end for end in _ends(entry, self._device) if end is not None]

    def loop(self, name: str) -> Loop | None:
        """The loop of that name, if it was the one running."""
        entry = self.running(name)
        return None if entry is None else _loop(entry, self._device)

    def _bytes(self, name: str, running: Entry) -> bytes:
        """An uncompressed npz archive of plain arrays, with one entry of JSON; nothing is pickled."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}

        def put(prefix: str, entry: Entry) -> list[str]:
            for key, values in entry.items():
                arrays[f"{prefix}:{key}"] = values.cpu().numpy() if isinstance(values, Tensor) else values
            return list(entry)

        document = {
            "format": FORMAT,
            "fit": self._fit,
            "elapsed_seconds": self.elapsed_seconds(),
            "finished": {
                key: put(f"finished:{i}", entry) for i, (key, entry) in enumerate(self._finished.items())
            },
            "running": {name: put("running", running)},
        }
        arrays["document"] = note(document)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    def _read(self, resume: bytes) -> None:
        try:
            with np.load(io.BytesIO(resume), allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            document = told(arrays["document"])
            known = document["format"] == FORMAT
        except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise InvalidFit("resume holds no checkpoint; start the fit afresh", ("resume",)) from error
        if not known or document["fit"] != self._fit:
            raise InvalidFit("resume is a checkpoint of another fit; start the fit afresh", ("resume",))
        self._elapsed_before = document["elapsed_seconds"]
        for i, (name, keys) in enumerate(document["finished"].items()):
            self._finished[name] = {key: arrays[f"finished:{i}:{key}"] for key in keys}
        for name, keys in document["running"].items():
            self._running = name, {key: arrays[f"running:{key}"] for key in keys}


def note(value: Any) -> np.ndarray[Any, Any]:
    """What JSON can say, as an array among others."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def told(array: np.ndarray[Any, Any]) -> Any:
    """What ``note`` was given."""
    return json.loads(array.tobytes())


def entry_of_components(components: Components, prefix: str = "") -> Entry:
    """Components by the names of their parts."""
    return {f"{prefix}{part}": getattr(components, part) for part in _PARTS}


def components_of(entry: Mapping[str, Any], device: str | torch.device, prefix: str = "") -> Components:
    """What ``entry_of_components`` put away."""
    return Components(*(tensor_on(entry[f"{prefix}{part}"], device) for part in _PARTS))


def entry_of_ends(ends: list[RestartEnd | None]) -> Entry:
    """The ends that there are, with the places of the others."""
    notes = [None if end is None else [end.outcome, end.n_steps, end.n_passes] for end in ends]
    entry: Entry = {_NOTE: note(notes)}
    for i, end in enumerate(ends):
        if end is not None:
            entry |= entry_of_components(end.components, f"{i}:")
    return entry


def entry_of_loop(loop: Loop, kept: Mapping[str, Tensor]) -> Entry:
    """A loop between two steps, with what is ``kept`` of its state."""
    about = {"running": loop.running, "windows": loop.windows, "n_steps": loop.n_steps, "best": loop.best}
    entry: Entry = {"loop": note(about), **entry_of_ends(loop.ends)}
    return entry | {f"state:{key}": values for key, values in kept.items()}


def _ends(entry: Entry, device: str) -> list[RestartEnd | None]:
    """The ends that ``entry_of_ends`` put away."""
    return [
        None if end is None else RestartEnd(components_of(entry, device, f"{i}:"), *end)
        for i, end in enumerate(told(entry[_NOTE]))
    ]


def _loop(entry: Entry, device: str) -> Loop:
    """The loop that ``entry_of_loop`` put away."""
    state = {
        key.removeprefix("state:"): tensor_on(values, device if values.dtype.kind == "f" else "cpu")
        for key, values in entry.items()
        if key.startswith("state:")
    }
    return Loop(state=state, ends=_ends(entry, device), **told(entry["loop"]))


def tensor_on(values: Any, device: str | torch.device) -> Tensor:
    """The numbers of an entry, which are an array where they come out of a checkpoint."""
    tensor: Tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.to(device)
