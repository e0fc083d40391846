"""Which Ray cluster a worker has its fits done on; all that the supervisor knows of Ray."""

import socket
from dataclasses import dataclass

_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class RayCluster:
    """A cluster.

    Attributes:
        address: Its head's, `host:port`.
        cpus_per_rank: How many cores a fit, or each rank of one, is given.
    """

    address: str
    cpus_per_rank: int


def is_reachable(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_SECONDS):
            return True
    except OSError:
        return False
