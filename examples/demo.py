"""The whole of mixserve in a minute: `make demo`.

Starts a service of its own in an empty folder, and over HTTP: draws 1000 points from a known mixture, fits
three components, and compares; then lets the service choose a mixture for Old Faithful's eruptions. Pictures
go to ./mixserve-demo. The service and its data are gone when it ends.
"""

import argparse
import csv
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import httpx
from rich.console import Console

import telling
from following import FitFailed, checked, fit
from running_server import DidNotStart, running_server

GOLD: dict[str, Any] = {
    "weights": [0.2, 0.4, 0.4],
    "means": [[-1, -1], [-1, 1], [1, 1]],
    "covariances": [[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
    "covariance_type": "full",
}
N_SAMPLES = 1000
ASKED = [[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [5.0, -5.0]]
FAITHFUL = Path(__file__).with_name("faithful.csv")
PICTURES = Path("mixserve-demo")
LINGER_SECONDS = 60.0


def main() -> None:
    """Runs the demo; ends with 0 when all went well, 130 after Ctrl-C, otherwise 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--linger",
        type=float,
        metavar="SECONDS",
        help=f"how long the service stays up (on a terminal {LINGER_SECONDS:.0f}, or until Enter; else 0)",
    )
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        run(console, arguments.linger)
    except KeyboardInterrupt:
        console.print("\nstopped; the service is ended and its data removed")
        sys.exit(130)
    except DidNotStart as error:
        sys.exit(f"demo: the service did not start: {error}")
    except (FitFailed, httpx.HTTPError) as error:
        sys.exit(f"demo: {error}")


def run(console: Console, linger_seconds: float | None) -> None:
    """Starts the service, does the demo, keeps the service up for a while."""
    console.print("[bold]mixserve[/]: starting the service on SQLite in an empty folder ...")
    with running_server() as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        console.print(f"the service is ready at [bold cyan]{url}[/]  (the API's documentation: {url}/docs)\n")
        PICTURES.mkdir(exist_ok=True)
        gold(http, console)
        faithful(http, console)
        _linger(console, url, linger_seconds)
    console.print("the service is ended and its data removed; [bold]make serve[/] starts one that stays")


def gold(http: httpx.Client, console: Console) -> None:
    """Draws points from a known mixture, learns it back, compares."""
    console.rule("[bold]1. A known mixture, learned back", align="left", style="dim")
    dataset = checked(
        http.post("/v1/datasets", json={"gold": GOLD, "n_samples": N_SAMPLES, "seed": 0, "name": "gold"})
    )
    console.print(f"drew {N_SAMPLES} points from three Gaussians; fitting three with full covariances by")
    console.print("1000 steps of gradient descent with momentum, from 8 random starts, the best kept")
    body = {
        "dataset": {"id": dataset["id"]},
        "n_components": 3,
        "covariance_type": "full",
        "optimizer": {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9},
        "initialization": {"method": "random"},
        "n_init": 8,
        "tolerance": 0,
        "max_steps": 1000,
    }
    ended = fit(http, console, body)
    result = ended["result"]
    from service.mixture import GaussianMixture  # torch takes a second; the service has started by now

    true, learned = (
        GaussianMixture.from_parameters(**GOLD),
        GaussianMixture.from_parameters(**result["mixture"]),
    )
    matching = {pair["fitted_component"]: pair["gold_component"] for pair in result["recovery"]["matching"]}
    pairs = sorted((i, j) for j, i in matching.items())
    console.print(telling.side_by_side(true, learned, pairs, ("true", "learned")))
    console.print(telling.recovery(result))
    stored = checked(http.post("/v1/mixtures", json=GOLD | {"name": "gold"}))
    densities = [_log_density(http, mixture_id, ASKED) for mixture_id in (stored["id"], result["mixture_id"])]
    console.print(telling.log_densities(ASKED, *densities))

    path = f"/v1/fits/{ended['id']}/plot.png"
    _keep_picture(http, console, path, "recovery", "gold.png", "the gold mixture beside what was learned")


def faithful(http: httpx.Client, console: Console) -> None:
    """Lets the service choose a mixture for a real file."""
    console.rule("[bold]2. A real file: Old Faithful's eruptions", align="left", style="dim")
    with FAITHFUL.open(newline="") as file:
        columns, *rows = csv.reader(file)
    points = [[float(value) for value in row] for row in rows]
    dataset = checked(
        http.post("/v1/datasets", json={"points": points, "columns": columns, "name": "Old Faithful"})
    )
    console.print(
        f"{len(points)} eruptions: minutes they lasted, minutes until the next; the service chooses"
    )
    console.print("among 1 to 5 components and four families of covariances, by BIC, 8 restarts each")
    body = {
        "dataset": {"id": dataset["id"]},
        "n_components": [1, 2, 3, 4, 5],
        "covariance_type": ["full", "tied", "diag", "spherical"],
        "selection": {"criterion": "bic"},
    }
    result = fit(http, console, body)["result"]
    from service.mixture import GaussianMixture

    mixture = GaussianMixture.from_parameters(**result["mixture"])
    console.print(telling.candidates(result, 8))
    console.print(
        f"chosen: [bold]{result['n_components']} components, {result['covariance_type']} covariances[/], "
        f"log-likelihood {result['log_likelihood']:.3f}"
    )
    console.print(telling.components(mixture, columns))
    path = f"/v1/mixtures/{result['mixture_id']}/plot.png"
    _keep_picture(http, console, path, "scatter", "faithful.png", "the eruptions, coloured by component")


def _log_density(http: httpx.Client, mixture_id: str, points: list[list[float]]) -> list[float]:
    answer = checked(http.post(f"/v1/mixtures/{mixture_id}/log-density", json={"points": points}))
    densities: list[float] = answer["log_density"]
    return densities


def _keep_picture(http: httpx.Client, console: Console, path: str, kind: str, name: str, what: str) -> None:
    answer = http.get(path, params={"kind": kind})
    if answer.is_error:
        checked(answer)
    (PICTURES / name).write_bytes(answer.content)
    console.print(f"picture: [bold]{PICTURES / name}[/] ({what})\n")


def _linger(console: Console, url: str, seconds: float | None) -> None:
    """Leaves the service up, so that a person can look around."""
    seconds = (LINGER_SECONDS if console.is_terminal else 0.0) if seconds is None else seconds
    if seconds <= 0:
        console.print(f"all of it was done at {url}")
        return
    console.print(
        f"open [bold cyan]{url}[/] to look around; it stays up for {seconds:.0f} s, or until you press Enter"
    )
    select.select([sys.stdin], [], [], seconds)


def _leave(number: int, _: object) -> NoReturn:
    """Ends the demo on a signal by way of every `finally`."""
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
