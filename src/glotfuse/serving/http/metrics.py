"""Prometheus metrics of a server, in a registry of its own."""

from __future__ import annotations

import time
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glotfuse.serving.engine import Engine
from glotfuse.serving.http.http_errors import CLIENT_GONE

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("glotfuse_requests", "Answered requests.", ["route", "status"])
        about = "Seconds from a request's headers to the answer's last byte."
        self.seconds = histogram("glotfuse_request_seconds", about, ["route"], buckets=_SECONDS)
        about = "Seconds until the first text of a generated answer."
        self.first_piece = histogram("glotfuse_first_text_seconds", about, buckets=_SECONDS)
        about = "Answers per step (generate) and texts per batch (classify, encode)."
        self.batch_size = histogram("glotfuse_batch_size", about, ["kind"], buckets=_SIZES)
        self.tokens = counter("glotfuse_tokens", "Positions read (in) and tokens generated (out).", ["direction"])
        self.texts = counter("glotfuse_texts", "Texts that were answered.", ["kind", "truncated"])
        self.streams = gauge("glotfuse_streams", "Answers that are being streamed.")
        self.cancelled = counter("glotfuse_cancelled", "Requests whose client went away before the answer.")
        self.waiting = gauge("glotfuse_waiting", "Requests, and texts to label, that wait.")
        self.running = gauge("glotfuse_running", "Answers that are being generated.")

    def count_batch(self, kind: str, size: int) -> None:
        """Told by an engine."""
        self.batch_size.labels(kind).observe(size)

    def watch(self, engine: Engine) -> None:
        """Reads queue and slots from the engine whenever the metrics are read."""
        self.waiting.set_function(lambda: engine.load()["waiting"])
        self.running.set_function(lambda: engine.load()["running"])


class Measured:
    """Middleware that counts and times every request.

    Args:
        app: What answers.
        metrics: Where it is counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as ASGI asks for."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            # Only routes that exist have a series of their own: clients choose paths.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - begun)
            if status == CLIENT_GONE:
                self.metrics.cancelled.inc()
