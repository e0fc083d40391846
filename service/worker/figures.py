"""What a worker counts since it began; it travels with its heartbeats."""

from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from time import monotonic
from typing import Any

from service.storage.queue import Claim
from service.storage.watching import CLAIM_WAIT_SECONDS
from service.worker.messages import Ended, Failed, Succeeded


class Figures:
    """Counts by name, as `service.storage.watching.FIGURES` explains them."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, float] = defaultdict(float)
        self._claim_waits = [0] * (len(CLAIM_WAIT_SECONDS) + 1)
        self._memory_bytes = 0
        self._begun = 0.0

    def begin(self, claim: Claim) -> None:
        """Counts a fit that begins."""
        self._begun = monotonic()
        self._counts["claims"] += 1
        if claim.attempt == 1:
            self._counts["claim_wait_seconds"] += claim.waited_seconds
            self._claim_waits[bisect_left(CLAIM_WAIT_SECONDS, claim.waited_seconds)] += 1

    def end(self, claim: Claim, ended: Ended, fitter_id: int) -> None:
        """Counts a fit that has ended."""
        self._counts["device_busy_seconds"] += monotonic() - self._begun
        self._memory_bytes = _resident_bytes(fitter_id)
        if isinstance(ended, Succeeded):
            self._counts["fits_succeeded"] += 1
            self._counts["fitted_points"] += ended.result.get("n_passes", 0) * claim.n_samples
        else:
            self._counts["fits_failed" if isinstance(ended, Failed) else "fits_stopped"] += 1

    def lose(self, what: str) -> None:
        """Counts a lease or a process that was lost with its fit."""
        self._counts["device_busy_seconds"] += monotonic() - self._begun
        self._counts[what] += 1

    def summary(self) -> dict[str, Any]:
        """Returns all of it as JSON."""
        waits = {"claim_waits": list(self._claim_waits)}
        return {**self._counts, **waits, "device_memory_used_bytes": self._memory_bytes}


def _resident_bytes(process_id: int) -> int:
    """Returns the most memory that a process has had; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return 0
    peak = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(peak.split()[1]) * 1024
