"""A fit in this process: the worker's own, on a dataset store that is gone afterwards."""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.client.progress import ProgressBar
from service.commands.connection import FAILED, INTERRUPTED, USAGE, end
from service.schemas.fit import FitRequest

if TYPE_CHECKING:
    from service.client.points import Points


def fit_here(points: "Points", request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of a fit as the service would give it, less the mixture's id.

    Ends the command when the request is not valid, or the fit does not succeed.
    """
    filled = _filled(request)
    from service.storage.dataset_store import DatasetStore
    from service.worker import fitting
    from service.worker.device import detect
    from service.worker.messages import Failed, Start, Succeeded
    from service.worker.reporting import as_contract

    try:
        device = detect(filled["device"]).device
    except ValueError as error:
        end(USAGE, str(error))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mixserve-") as folder, ProgressBar(None) as bar:
        store = DatasetStore(Path(folder))
        with store.draft(points.rows.shape[1]) as draft:
            draft.append(points.rows)
            draft.finish()
            store.publish(draft)
        bar.status("running")
        start = Start(_claim(points, filled, draft.sha256), checkpoint_seconds=float("inf"))
        try:
            ended = fitting.run(
                start,
                store,
                device,
                lambda progress: bar.advance(as_contract(progress, time.monotonic() - begun)),
                lambda state: None,
            )
        except KeyboardInterrupt:
            end(INTERRUPTED, "interrupted")
        bar.status("succeeded" if isinstance(ended, Succeeded) else "failed")
    if isinstance(ended, Failed):
        end(FAILED, f"{ended.message} [{ended.code}]")
    assert isinstance(ended, Succeeded), "nobody stops it"  # noqa: S101
    return ended.result


def _filled(request: dict[str, Any]) -> dict[str, Any]:
    """Returns the request with every default filled in."""
    from pydantic import ValidationError

    try:
        body = FitRequest.model_validate({"dataset": {"id": "here"}} | request)
    except ValidationError as error:
        places = [
            f"  {'/'.join(str(part) for part in detail['loc'] if not str(part).startswith('tag:'))}: "
            f"{detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)
        ]
        end(FAILED, "the request is not valid\n" + "\n".join(places))
    return body.model_dump(mode="json")


def _claim(points: "Points", request: dict[str, Any], sha256: str) -> Any:
    from service.storage.queue import Claim

    return Claim(
        fit_id="here",
        owner="here",
        token="",
        attempt=1,
        request=request,
        timeout_seconds=None,
        weights_sha256=None,
        dataset_sha256=sha256,
        components_sha256=None,
        gold=None,
        columns=points.columns,
        n_samples=points.rows.shape[0],
        n_features=points.rows.shape[1],
    )
