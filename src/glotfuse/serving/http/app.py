"""The HTTP application: routes, middleware, and an engine that starts and stops with it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from glotfuse import __version__
from glotfuse.serving.engine import Engine
from glotfuse.serving.http import chat, classification, completions, operations
from glotfuse.serving.http.gate import Gate, ServerState
from glotfuse.serving.http.http_errors import add_handlers
from glotfuse.serving.http.metrics import Measured, Metrics
from glotfuse.serving.http.service import ServeSettings, Service


def build_app(engine: Engine, settings: ServeSettings | None = None, metrics: Metrics | None = None) -> FastAPI:
    """Makes the application; its engine starts with it and is closed with it.

    Args:
        engine: What answers.
        settings: How clients are treated.
        metrics: The ones that the engine reports its batches to, if it does.
    """
    settings, metrics, state = settings or ServeSettings(), metrics or Metrics(), ServerState()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.close()

    app = FastAPI(title="glotfuse", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = Service(engine, metrics, settings, state, int(time.time()))
    metrics.watch(engine)
    for routes in (completions, chat, classification, operations):
        app.include_router(routes.router)
    add_handlers(app)
    app.add_middleware(
        Gate,
        state=state,
        api_key=settings.api_key,
        max_body_bytes=settings.max_body_bytes,
        body_seconds=settings.patience.body,
    )
    app.add_middleware(Measured, metrics=metrics)
    return app
