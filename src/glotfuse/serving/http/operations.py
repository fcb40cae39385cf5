"""`/v1/models`, `/health`, `/ready` and `/metrics`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from glotfuse.serving.http.service import Service, Shared

router = APIRouter()


@router.get("/v1/models")
async def models(service: Shared) -> dict[str, Any]:
    """The one model that is served."""
    return {"object": "list", "data": [_model(service)]}


@router.get("/v1/models/{name:path}")
async def model(name: str, service: Shared) -> dict[str, Any]:
    """The served model, by its name."""
    service.check_model(name)
    return _model(service)


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process answers at all."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(service: Shared) -> Response:
    """Whether requests should be sent here: 503 while the server shuts down or its engine is out of order."""
    if service.state.draining:
        return JSONResponse({"status": "shutting down"}, 503)
    if not await service.engine.healthy():
        return JSONResponse({"status": "engine unavailable"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
async def metrics(service: Shared) -> Response:
    """For Prometheus."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model(service: Service) -> dict[str, Any]:
    about = asdict(service.engine.description)
    own = {"id": about.pop("name"), "object": "model", "created": service.started, "owned_by": "glotfuse"}
    return {**own, **about}
