"""What the service does when three times as many requests come as it can answer.

    python -m benchmarks.service_overload [--seconds 8] [--times 3] [--only questions|batches|lists|creations]

Prints one line of JSON for each kind of request: one-point questions, which the event loop answers, and
questions of 200 points, of which one sender can send more times as many as it can answer; lists, which read
the database in a thread; new mixtures, which write to it (SQLite). For each it measures what can
be answered (`capacity_per_second`: 32 clients that each ask again as soon as they have their answer), then
has that many times as many arrive in an open model, each when it is due, and then half as many.

- `goodput_ratio`: answered with success under overload, over capacity; the goal is at least 0.8.
- `processor_ratio`: the same of answers for a second of the server's processor time, which other work on the
  machine changes less.
- `arrivals_per_second`: what was sent. What the sender could not send within 0.02 s is left out, and is
  `n_unsent`: one process sends about as many small requests as the server can refuse.
- `refused_p99_milliseconds`: from when a refused request was due to the end of its 503; the goal is at most
  100. `late_p99_milliseconds` says how late the sender itself was; that is within every latency.
- `health_checks`: of /livez and /readyz meanwhile, twenty times a second each, by a process of their own; all
  are to be 200.
- `recovered_after_seconds`: from the end of the overload to the last refusal.

The server has one core and the sender the other: on fewer than two, or beside other work, the figures say
little. What one sender can send is limited too; where `late_p99_milliseconds` is large, it was.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.http_load import closed_loop, percentile, post, post_points
from benchmarks.mixture_machine import print_line
from benchmarks.open_arrivals import UNSENT, Answer, poisson, regular, send
from benchmarks.scoring_one_point import processor_seconds
from tests import serving

GOAL_GOODPUT, GOAL_MILLISECONDS = 0.8, 100.0
N_CLIENTS, N_POINTS = 32, 200
HEALTH = ("/livez", "/readyz")
HEALTH_EVERY_SECONDS = 0.05
OK = (200, 201)
_START_SECONDS = 60


def get(url: str, path: str) -> bytes:
    """A GET request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: {url.partition('//')[2]}\r\n\r\n".encode()


@contextmanager
def service() -> Iterator[tuple[str, int]]:
    """Yields the URL and the process of a service with a worker on SQLite, its log in a file."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        options = ("--port", "0", "--data-dir", folder)
        with log.open("w") as said:
            process = subprocess.Popen(
                serving.command("serve", *options),
                env=serving.environment(log_level="warning"),
                stdout=said,
                stderr=said,
            )
        try:
            yield _until_ready(process, log), process.pid
        finally:
            process.terminate()
            process.wait()


def _until_ready(process: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        found = log.read_text().partition("listens at ")[2].split()
        try:
            if found and httpx.get(f"{found[0]}/readyz", trust_env=False).is_success:
                return found[0]
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"the service does not start:\n{log.read_text()}")


def requests(url: str) -> dict[str, bytes]:
    """The request of each kind."""
    with httpx.Client(base_url=url, trust_env=False) as http:
        mixtures = [http.post("/v1/mixtures", json=serving.GOLD).raise_for_status().json() for _ in range(10)]
    question = f"{url}/v1/mixtures/{mixtures[0]['id']}/log-density"
    return {
        "questions": post_points(question, [[0.25, -0.5]]),
        "batches": post_points(question, [[0.01 * place, -0.02 * place] for place in range(N_POINTS)]),
        "lists": get(url, "/v1/mixtures?page_size=10"),
        "creations": post(f"{url}/v1/mixtures", json.dumps(serving.GOLD).encode()),
    }


def measure(server: tuple[str, int], kind: str, request: bytes, seconds: float, times: float) -> None:
    """Measures one kind of request, and prints."""
    url, process_id = server
    used = [processor_seconds(process_id)]
    capacity = closed_loop(url, request, n_connections=N_CLIENTS, seconds=seconds)
    used.append(processor_seconds(process_id))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as checker:
        checker.submit(int).result()  # it has begun
        checking = checker.submit(check_health, url, seconds)
        answers = send(url, poisson(times * capacity, seconds, kind, request))
        checked = checking.result()
    used.append(processor_seconds(process_id))
    after = send(url, poisson(capacity / 2, seconds / 2, kind, request, seed=1))
    asked = [answer for answer in answers if answer.status != UNSENT]
    served, refused = with_status(asked, OK), with_status(asked, (503,))
    # What was answered while more came, not what was left over at the end.
    in_time = [answer for answer in served if answer.due + answer.seconds <= seconds]
    late = [answer.due for answer in with_status(after, (503,))]
    print_line(
        benchmark="service_overload",
        kind=kind,
        capacity_per_second=capacity,
        arrivals_per_second=len(asked) / seconds,
        goodput_per_second=len(in_time) / seconds,
        goodput_ratio=len(in_time) / seconds / capacity,
        processor_ratio=len(served) / (used[2] - used[1]) / (capacity * seconds) * (used[1] - used[0]),
        goal_goodput_ratio=GOAL_GOODPUT,
        n_unsent=len(answers) - len(asked),
        n_refused=len(refused),
        n_neither=len(asked) - len(served) - len(refused),
        refused_p50_milliseconds=milliseconds(refused, 50),
        refused_p99_milliseconds=milliseconds(refused, 99),
        goal_refused_milliseconds=GOAL_MILLISECONDS,
        served_p99_milliseconds=milliseconds(served, 99),
        late_p99_milliseconds=1000 * percentile([answer.late_seconds for answer in asked], 99),
        health_checks=len(checked),
        health_checks_not_200=len(checked) - len(with_status(checked, (200,))),
        health_p99_milliseconds=milliseconds(checked, 99),
        recovered_after_seconds=max(late, default=0.0),
        after_served_share=len(with_status(after, OK)) / len(after),
        after_p99_milliseconds=milliseconds(after, 99),
    )


def check_health(url: str, seconds: float) -> list[Answer]:
    """Asks how a service is, for so long."""
    return send(url, *(regular(HEALTH_EVERY_SECONDS, seconds, path, get(url, path)) for path in HEALTH))


def with_status(answers: list[Answer], statuses: tuple[int, ...]) -> list[Answer]:
    """Those answers that have one of these statuses."""
    return [answer for answer in answers if answer.status in statuses]


def milliseconds(answers: list[Answer], percent: float) -> float | None:
    """A percentile of how long they took; None of none."""
    return 1000 * percentile([answer.seconds for answer in answers], percent) if answers else None


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--times", type=float, default=3.0, help="how many times the capacity arrives")
    parser.add_argument("--only", choices=("questions", "batches", "lists", "creations"), help="one kind")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with service() as server:
        for kind, request in requests(server[0]).items():
            if options.only in (None, kind):
                measure(server, kind, request, options.seconds, options.times)


if __name__ == "__main__":
    main()
