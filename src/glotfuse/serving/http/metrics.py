"""Prometheus metrics of a server, in a registry of its own."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glotfuse.serving.engine import Engine
from glotfuse.serving.http.http_errors import CLIENT_GONE

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """What is counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("glotfuse_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "glotfuse_request_seconds",
            "Seconds from a request's headers to the answer's last byte.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_piece = Histogram(
            "glotfuse_first_text_seconds",
            "Seconds until the first text of a generated answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_size = Histogram(
            "glotfuse_batch_size",
            "Answers per step (generate) and texts per batch (classify, encode).",
            ["kind"],
            buckets=_SIZES,
            registry=self.registry,
        )
        self.tokens = Counter(
            "glotfuse_tokens", "Positions read (in) and tokens generated (out).", ["direction"], registry=self.registry
        )
        self.texts = Counter(
            "glotfuse_texts", "Texts that were answered.", ["kind", "truncated"], registry=self.registry
        )
        self.streams = Gauge("glotfuse_streams", "Answers that are being streamed.", registry=self.registry)
        self.cancelled = Counter(
            "glotfuse_cancelled", "Requests whose client went away before the answer.", registry=self.registry
        )
        self.waiting = Gauge("glotfuse_waiting", "Requests, and texts to label, that wait.", registry=self.registry)
        self.running = Gauge("glotfuse_running", "Answers that are being generated.", registry=self.registry)

    def count_batch(self, kind: str, size: int) -> None:
        """Told by an engine."""
        self.batch_size.labels(kind).observe(size)

    def watch(self, engine: Engine) -> None:
        """Reads queue and slots from the engine whenever the metrics are read."""
        self.waiting.set_function(lambda: engine.load()["waiting"])
        self.running.set_function(lambda: engine.load()["running"])

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


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
