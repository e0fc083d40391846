"""Workers, liveness and readiness."""

from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Response

from service.api.answers import JsonAnswer, json_only
from service.api.services import Services, Use
from service.errors import Unavailable
from service.schemas.service import Health, Page, Worker
from service.storage import migrations, workers

router = APIRouter(tags=["service"], dependencies=[Depends(json_only)])
# Threads of their own, which no other request has to be waited for.
_CHECKING = CapacityLimiter(4)


@router.get("/v1/workers", response_model=Page[Worker], operation_id="list_workers")
def list_workers(services: Use) -> Response:
    """Lists the workers heard of within a lease, oldest first."""
    with services.database.read() as session:
        alive = workers.alive(session, services.settings.lease_seconds)
    return JsonAnswer({"items": [_as_answer(worker, running) for worker, running in alive]})


@router.get("/livez", response_model=Health, operation_id="get_liveness")
async def livez() -> Response:
    """Says that the process answers."""
    return JsonAnswer({"status": "ok", "checks": {}})


@router.get(
    "/readyz",
    response_model=Health,
    responses={503: {"model": Health, "description": "something is missing"}},
    operation_id="get_readiness",
)
async def readyz(services: Use) -> Response:
    """Says whether fits can be taken and done: database there and migrated, a worker alive, not ending."""
    checks = await to_thread.run_sync(_checks, services, limiter=_CHECKING)
    if services.watcher.draining.is_set():
        checks["server"] = "ending; ask another replica"
    ready = all(check == "ok" for check in checks.values())
    return JsonAnswer({"status": "ok" if ready else "unavailable", "checks": checks}, 200 if ready else 503)


def _checks(services: Services) -> dict[str, str]:
    try:
        found, wanted = migrations.current_revision(services.database), migrations.head_revision()
        if found != wanted:
            return {"database": "ok", "schema": f"is at {found}, not {wanted}: run `mixserve migrate`"}
        with services.database.read() as session:
            alive = workers.alive(session, services.settings.lease_seconds)
    except Unavailable as error:
        return {"database": error.detail}
    return {
        "database": "ok",
        "schema": "ok",
        "worker": "ok" if alive else "none has been heard of: `mixserve worker`",
    }


def _as_answer(worker: Any, running: list[str]) -> dict[str, Any]:
    return {
        "id": worker.id,
        "hostname": worker.hostname,
        "device": {
            "type": worker.device_type,
            "name": worker.device_name,
            "memory_bytes": worker.memory_bytes,
            "n_devices": worker.n_devices,
        },
        "started_at": worker.started_at,
        "last_heartbeat_at": worker.last_heartbeat_at,
        "running_fit_ids": running,
    }
