"""What a supervisor and its fitter say to each other."""

from dataclasses import dataclass, field
from typing import Any, Literal

from service.storage.mixtures import Parameters
from service.storage.queue import Claim
from service.storage.workers import Device

Asked = Literal["cancelled", "timed_out", "released"]
"""Why a fit is to end, as a fit's watcher may say it; not imported from there, since that needs torch."""


@dataclass(frozen=True)
class Ready:
    """The fitter's first word: what it computes on."""

    device: Device


@dataclass(frozen=True)
class Refused:
    """The fitter's first word when it cannot have the device asked for."""

    reason: str


@dataclass(frozen=True)
class Start:
    """Do this fit, from a checkpoint if it has one."""

    claim: Claim
    checkpoint_seconds: float
    checkpoint: bytes | None = field(default=None, repr=False)
    worker_id: str = ""


@dataclass(frozen=True)
class Stop:
    """End the fit at the next step, with this outcome; one that is released writes a checkpoint first."""

    outcome: Asked


@dataclass(frozen=True)
class Progressed:
    """How far the fit has come, as `progress` of the contract, with what is new of its `traces`."""

    progress: dict[str, Any]


@dataclass(frozen=True)
class Checkpointed:
    """A part of a state that the fit can go on from, in another process too; parts come in order."""

    part: int
    data: bytes = field(repr=False)
    last: bool


@dataclass(frozen=True)
class Succeeded:
    """The fit's result, and the parameters to keep."""

    result: dict[str, Any]
    parameters: Parameters


@dataclass(frozen=True)
class Failed:
    """The fit cannot be done; trying again would not help."""

    code: str
    message: str


@dataclass(frozen=True)
class Stopped:
    """The fit ended because it was told to; its supervisor knows why."""


Ended = Succeeded | Failed | Stopped


@dataclass(frozen=True)
class Lost:
    """The fit cannot go on, for one of its processes has died; others may go on from its checkpoint."""

    reason: str


@dataclass(frozen=True)
class Finished:
    """The fitter's last word on a fit: how it ended, and how far it had come, as in `Progressed`."""

    ended: Ended
    progress: dict[str, Any] | None
