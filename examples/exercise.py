"""The exercise that mixserve grew from, part by part, against a running service.

    python examples/exercise.py [http://127.0.0.1:8000]

Every request is a file in examples/exercise. What was learned is printed beside the closed form or the truth.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

import telling
from following import FitFailed, checked, fit
from service import plots
from service.mixture import GaussianMixture

BODIES = Path(__file__).with_name("exercise")
PICTURE = Path("mixserve-demo/exercise.png")


def main() -> None:
    """Runs all parts; ends with 1 when one of them could not be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000", help="of a running service")
    url = parser.parse_args().url
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            run(http, console)
    except httpx.ConnectError:
        sys.exit(
            f"exercise: nothing answers at {url}; start a service with `make serve`, or give its address"
        )
    except (FitFailed, httpx.HTTPError) as error:
        sys.exit(f"exercise: {error}")


def run(http: httpx.Client, console: Console) -> None:
    """Does the five parts."""
    head(console, "1. A univariate Gaussian by gradient descent, beside its closed form")
    univariate(http, console, "1-univariate-full-batch", "1000 steps over all points")
    univariate(http, console, "1-univariate-minibatches", "100 passes in minibatches of 10")
    head(console, "2. Points from the gold mixture, with their components")
    gold_samples(http, console)
    head(console, "3. Diagonal mixtures of three and of six components")
    three, six = (posted(http, console, name) for name in ("3-diagonal-three", "3-diagonal-six"))
    console.print(compared({"three": three, "six": six}))
    head(console, "4. The full mixture, correlations and all, by SGD and by Adam")
    sgd, adam = (posted(http, console, name) for name in ("4-full-sgd", "4-full-adam"))
    console.print(compared({"SGD": sgd, "Adam": adam}))
    console.print(beside_gold(sgd))
    draw(http, console, sgd)
    head(console, "5. Sometimes it fails, so rerun it: 32 restarts, the best kept, all reported")
    console.print(optima(posted(http, console, "5-restarts")))


def head(console: Console, title: str) -> None:
    """Prints the title of a part."""
    console.rule(f"[bold]{title}", align="left", style="dim")


def body_of(name: str) -> dict[str, Any]:
    """The request in examples/exercise with this name."""
    body: dict[str, Any] = json.loads((BODIES / f"{name}.json").read_text())
    return body


def posted(http: httpx.Client, console: Console, name: str) -> dict[str, Any]:
    """The fit that a request ends in."""
    console.print(f"POST /v1/fits < examples/exercise/{name}.json")
    return fit(http, console, body_of(name))


def univariate(http: httpx.Client, console: Console, name: str, how: str) -> None:
    """Learns mean and standard deviation, and prints them beside the closed form."""
    ended = posted(http, console, name)
    result = ended["result"]
    learned, closed = (
        GaussianMixture.from_parameters(**mixture)
        for mixture in (result["mixture"], result["closed_form"]["mixture"])
    )
    console.print(telling.side_by_side(closed, learned, [(0, 0)], ("closed form", how)))
    console.print(
        f"log-likelihood: closed form {result['closed_form']['log_likelihood']:.4f}, "
        f"learned {result['log_likelihood']:.4f}\n"
    )


def gold_samples(http: httpx.Client, console: Console) -> None:
    """Draws the gold dataset and prints the first of its points."""
    console.print("POST /v1/datasets < examples/exercise/2-gold-samples.json")
    dataset = checked(http.post("/v1/datasets", json=body_of("2-gold-samples")))
    drawn = checked(http.get(f"/v1/datasets/{dataset['id']}/points", params={"limit": dataset["n_samples"]}))
    table = telling.table(f"the first of {dataset['n_samples']} points", ">x", ">y", ">component")
    for (x, y), component in list(zip(drawn["points"], drawn["components"], strict=True))[:5]:
        table.add_row(f"{x:.4f}", f"{y:.4f}", str(component + 1))
    console.print(table)
    shares = np.bincount(drawn["components"]) / dataset["n_samples"]
    console.print(f"shares of the components: {', '.join(f'{share:.3f}' for share in shares)}\n")


def compared(fits: dict[str, dict[str, Any]]) -> Table:
    """A table with a row of figures for each fit."""
    table = telling.table(
        "", "fit", ">log-likelihood", ">BIC", ">KL(gold || learned)", ">Rand index", ">seconds"
    )
    for name, ended in fits.items():
        result = ended["result"]
        table.add_row(
            name,
            f"{result['log_likelihood']:.3f}",
            f"{result['bic']:.2f}",
            f"{result['recovery']['kl']['value']:.5f}",
            f"{result['recovery']['adjusted_rand_index']:.4f}",
            f"{result['elapsed_seconds']:.2f}",
        )
    return table


def beside_gold(ended: dict[str, Any]) -> Table:
    """A table of learned beside true parameters."""
    pairs = sorted(
        (pair["gold_component"], pair["fitted_component"]) for pair in ended["result"]["recovery"]["matching"]
    )
    gold = GaussianMixture.from_parameters(**body_of("4-full-sgd")["dataset"]["gold"])
    learned = GaussianMixture.from_parameters(**ended["result"]["mixture"])
    return telling.side_by_side(gold, learned, pairs, ("true", "learned"))


def draw(http: httpx.Client, console: Console, ended: dict[str, Any]) -> None:
    """Draws samples of the learned mixture."""
    path = f"/v1/mixtures/{ended['result']['mixture_id']}/samples"
    samples = checked(http.post(path, json={"n_samples": 1000, "seed": 1}))
    figure = plots.scatter(
        GaussianMixture.from_parameters(**ended["result"]["mixture"]),
        np.array(samples["points"]),
        np.array(samples["components"]),
        columns=["x", "y"],
        title="1000 samples of the learned mixture",
    )
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(plots.render(figure, "png"))
    console.print(f"picture: {PICTURE}\n")


def optima(ended: dict[str, Any]) -> Table:
    """A table of the distinct optima that the restarts ended in."""
    table = telling.table(
        "optima, best first", ">restarts", ">log-likelihood", "ended by", ">smallest weight"
    )
    for optimum in ended["result"]["optima"]:
        value, weight = optimum["mean_log_likelihood"], optimum["smallest_weight"]
        table.add_row(
            str(optimum["hits"]),
            "–" if value is None else f"{1000 * value:.3f}",
            optimum["outcome"],
            "–" if weight is None else f"{weight:.4f}",
        )
    return table


if __name__ == "__main__":
    main()
