"""What the routes share: engine, metrics, limits, and the checks that every request needs."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from glotfuse.errors import did_you_mean
from glotfuse.serving.engine import Engine
from glotfuse.serving.http.gate import ServerState
from glotfuse.serving.http.http_errors import HttpError
from glotfuse.serving.http.metrics import Metrics
from glotfuse.serving.http.patience import Patience


@dataclass(frozen=True)
class ServeSettings:
    """How a server treats its clients."""

    api_key: str | None = None
    """What clients must send as bearer token; None asks for none."""
    timeout: float = 120.0
    """Seconds for a request, waiting included."""
    max_body_bytes: int = 1_000_000
    """Largest body."""
    patience: Patience = field(default_factory=Patience)
    """Of the connections."""


@dataclass(frozen=True)
class Service:
    """What the routes share."""

    engine: Engine
    metrics: Metrics
    settings: ServeSettings
    state: ServerState
    started: int
    """Unix time."""

    def check_model(self, name: str | None) -> str:
        """The served model's name, if it is the one that was asked for or none was.

        Raises:
            HttpError: Another one was asked for (404).
        """
        served = self.engine.description.name
        if name is not None and name != served:
            message = f"Expected the model {served!r}; found {name[:100]!r}.{did_you_mean(name[:100], [served])}"
            raise HttpError(404, message, code="model_not_found", param="model")
        return served


def head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """What an answer begins with: an id of its own, what it is, the Unix time, and the model."""
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


async def _service(request: Request) -> Service:  # a plain function would get a thread for each request
    service: Service = request.app.state.service
    return service


Shared = Annotated[Service, Depends(_service)]
