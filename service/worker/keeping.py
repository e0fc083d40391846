"""Where the checkpoints of a fit go, part by part as they come."""

import logging

from service.errors import ServiceError
from service.storage import checkpoints
from service.storage.database import Database
from service.storage.queue import Claim
from service.worker.messages import Checkpointed

logger = logging.getLogger(__name__)


class Keeping:
    """Keeps the checkpoints of one fit; one that cannot be kept costs its fit nothing but that checkpoint."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim
        self._number: int | None = None

    def take(self, given: Checkpointed) -> None:
        """Keeps a part; once one could not be kept, the others of its checkpoint are left."""
        try:
            if given.part == 0:
                self._number = None
                self._number = checkpoints.begin(self._database, self._claim, given.data, last=given.last)
            elif self._number is not None and not self._go_on(self._number, given):
                self._number = None
        except ServiceError as error:
            self._number = None
            logger.warning("a checkpoint of fit %s could not be kept: %s", self._claim.fit_id, error)
        except Exception:
            # A driver refuses in ways of its own; the fit goes on without.
            self._number = None
            logger.exception("a checkpoint of fit %s cannot be kept", self._claim.fit_id)

    def _go_on(self, number: int, given: Checkpointed) -> bool:
        return checkpoints.go_on(self._database, self._claim, number, given.part, given.data, last=given.last)
