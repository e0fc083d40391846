"""What a fit has done so far, kept so that another process goes on from there to the same numbers."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.mixture.components import Components
from service.mixture.invalid import InvalidFit

FORMAT = 2
_PARTS = ("log_weights", "means", "precisions_cholesky")


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
    """Keeps the ends of finished loops and the state of the running one, by name.

    Args:
        fit: what tells this fit from another, ready for JSON.
        checkpoint: takes the bytes of a checkpoint, at most every ``seconds``; None keeps nothing.
        resume: bytes of an earlier checkpoint of the same fit, or None to start afresh.
        seconds: the least time between two checkpoints.
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
        self._seconds = seconds
        self._written = self._started = time.monotonic()
        self._finished: dict[str, list[RestartEnd]] = {}
        self._loop: tuple[str, Loop] | None = None
        self._elapsed_before = 0.0
        if resume is not None:
            self._read(resume, device)

    def elapsed_seconds(self) -> float:
        """Time spent on this fit, that of the processes before included."""
        return self._elapsed_before + time.monotonic() - self._started

    def ends(self, name: str) -> list[RestartEnd] | None:
        """The ends of the loop of that name, if it has finished."""
        return self._finished.get(name)

    def loop(self, name: str) -> Loop | None:
        """The loop of that name, if it was the one running."""
        return self._loop[1] if self._loop is not None and self._loop[0] == name else None

    def finish(self, name: str, ends: list[RestartEnd]) -> None:
        """Notes that the loop of that name has finished."""
        if self._checkpoint is not None:
            self._finished[name] = ends

    def offer(self, name: str, loop: Loop, derived: Collection[str] = ()) -> None:
        """Writes a checkpoint if it is time, without the entries of the state that are ``derived``."""
        if time.monotonic() - self._written >= self._seconds:
            self.write(name, loop, derived)

    def write(self, name: str, loop: Loop, derived: Collection[str] = ()) -> None:
        """Writes a checkpoint at once."""
        if self._checkpoint is not None:
            self._checkpoint(self._bytes(name, loop, derived))
            self._written = time.monotonic()

    def _bytes(self, name: str, loop: Loop, derived: Collection[str]) -> bytes:
        """An uncompressed npz archive of plain arrays, with one entry of JSON; nothing is pickled."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        document = {
            "format": FORMAT,
            "fit": self._fit,
            "elapsed_seconds": self.elapsed_seconds(),
            "finished": {key: _noted(arrays, key, ends) for key, ends in self._finished.items()},
            "loop": {
                "name": name,
                "running": loop.running,
                "windows": loop.windows,
                "n_steps": loop.n_steps,
                "best": loop.best,
                "ends": _noted(arrays, "ended", loop.ends),
            },
        }
        for key, tensor in loop.state.items():
            if key not in derived:
                arrays[f"state:{key}"] = tensor.cpu().numpy()
        arrays["document"] = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        return file.getvalue()

    def _read(self, resume: bytes, device: str) -> None:
        try:
            with np.load(io.BytesIO(resume), allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            document = json.loads(arrays["document"].tobytes())
            known = document["format"] == FORMAT
        except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise InvalidFit("resume holds no checkpoint; start the fit afresh", ("resume",)) from error
        if not known or document["fit"] != self._fit:
            raise InvalidFit("resume is a checkpoint of another fit; start the fit afresh", ("resume",))
        self._elapsed_before = document["elapsed_seconds"]
        for key, notes in document["finished"].items():
            self._finished[key] = [end for end in _ends(arrays, key, notes, device) if end is not None]
        saved = document["loop"]
        state = {
            key.removeprefix("state:"): torch.from_numpy(array)
            for key, array in arrays.items()
            if key.startswith("state:")
        }
        self._loop = (
            saved["name"],
            Loop(
                {
                    key: tensor.to(device) if tensor.is_floating_point() else tensor
                    for key, tensor in state.items()
                },
                saved["running"],
                _ends(arrays, "ended", saved["ends"], device),
                saved["windows"],
                saved["n_steps"],
                saved["best"],
            ),
        )


def _noted(arrays: dict[str, Any], key: str, ends: list[Any]) -> list[Any]:
    """Puts the ends' numbers among the arrays; what is left of each for JSON comes back."""
    notes: list[Any] = []
    for i, end in enumerate(ends):
        if end is None:
            notes.append(None)
            continue
        notes.append([end.outcome, end.n_steps, end.n_passes])
        for part in _PARTS:
            arrays[f"{key}:{i}:{part}"] = getattr(end.components, part).cpu().numpy()
    return notes


def _ends(arrays: dict[str, Any], key: str, notes: list[Any], device: str) -> list[RestartEnd | None]:
    """The ends that ``_noted`` put away."""
    ends: list[RestartEnd | None] = []
    for i, note in enumerate(notes):
        if note is None:
            ends.append(None)
            continue
        parts = (torch.from_numpy(arrays[f"{key}:{i}:{part}"]).to(device) for part in _PARTS)
        ends.append(RestartEnd(Components(*parts), *note))
    return ends
