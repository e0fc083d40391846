"""What a running service does to its memory, and to its other clients, while it is treated badly."""

import threading
from pathlib import Path

from tests.serving import Server


class Watched:
    """The most memory that a server's process takes while a block runs; that it answers others meanwhile.

    `RssAnon` leaves out the pages of mapped files, which the kernel takes back when it needs them.
    """

    def __init__(self, server: Server, mixture_id: str, kind: str = "VmRSS") -> None:
        self._kind = kind
        self._question = f"/v1/mixtures/{mixture_id}/log-density"
        self._status = Path(f"/proc/{server.process.pid}/status")
        self._client = server.client()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.before = self.most = self._resident()
        self.n_asked = self.n_answered = 0

    def _resident(self) -> int:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(self._kind))

    def _watch(self) -> None:
        """Looks at the memory and asks, one after the other, until the block is over; at least once."""
        while True:
            over = self._over.wait(0.01)
            self.most = max(self.most, self._resident())
            self.n_asked += 2
            self.n_answered += self._client.get("/livez").is_success
            self.n_answered += self._client.post(self._question, json={"points": [[0, 0]]}).is_success
            if over:
                return

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()
        if failure is None:
            assert self.n_answered == self.n_asked

    @property
    def growth(self) -> int:
        return self.most - self.before
