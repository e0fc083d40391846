"""`/metrics`, in the text format of Prometheus."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.api.services import Use

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    operation_id="get_metrics",
    response_class=PlainTextResponse,
    responses={
        200: {
            "description": "Prometheus' text format",
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'mixserve_fits{status="queued"} 3.0\n',
                }
            },
        }
    },
)
def metrics(services: Use) -> Response:
    """Returns what Prometheus reads: this process's requests, and the fits and workers of all."""
    return Response(generate_latest(services.metrics.registry), media_type=CONTENT_TYPE_LATEST)
