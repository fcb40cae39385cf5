"""Runs the application with uvicorn; a SIGTERM or Ctrl-C lets running requests finish."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from glotfuse.errors import GlotfuseError
from glotfuse.serving.http.connections import Connection, check_all, most_connections

if TYPE_CHECKING:
    from fastapi import FastAPI

    from glotfuse.serving.http.service import Service

_POLL = 0.05
_CLOSING = 5
"""Seconds that connections get after their last answer."""
_BACKLOG = 256
"""Connections that wait to be accepted; so many are accepted at once, before the first of them is looked at."""
_LAST_BODY = 1.0
"""Seconds after a signal within which a request must have arrived."""


class GracefulServer(uvicorn.Server):
    """Refuses new requests with 503 after a signal, and stops when the running ones are answered.

    Args:
        config: Of uvicorn.
        service: Where requests are counted.
        grace: Most seconds that running requests get; what runs longer is told that the server has shut down.
        on_ready: Called once the server listens.
    """

    def __init__(self, config: uvicorn.Config, service: Service, grace: float, on_ready: Callable[[], None]):
        super().__init__(config)
        self._service = service
        self._grace = grace
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: Future[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then says so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Looks after the connections; uvicorn calls it ten times a second."""
        check_all(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to drain; a second signal stops at once."""
        if self._service.state.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._service.state.draining = True
        self._draining = asyncio.run_coroutine_threadsafe(self._wait(self._loop), self._loop)

    async def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        state, end = self._service.state, loop.time() + self._grace
        state.hurry(loop.time() + _LAST_BODY)
        while state.open_requests and loop.time() < end:
            await asyncio.sleep(_POLL)
        if state.open_requests:
            await self._service.engine.close()  # ends what still runs, each with an error that says why
        self.should_exit = True


def server_config(app: FastAPI, **options: Any) -> uvicorn.Config:
    """Makes the settings of uvicorn for an app.

    Args:
        app: From `build_app`; its settings say how connections are treated.
        **options: Of `uvicorn.Config`, over those that are chosen here.
    """
    patience = app.state.service.settings.patience
    patience = replace(patience, connections=most_connections(patience.connections))
    chosen: dict[str, Any] = {
        "http": partial(Connection, patience=patience),
        "backlog": _BACKLOG,
        "ws": "none",  # a WebSocket would leave the limits of `Connection`
        "log_level": "warning",
        "timeout_keep_alive": patience.idle,
        "timeout_graceful_shutdown": _CLOSING,
        "lifespan": "on",
    }
    return uvicorn.Config(app, **{**chosen, **options})


def run(app: FastAPI, host: str, port: int, grace: float, announce: Callable[[str], None]) -> None:
    """Serves until a signal comes.

    Args:
        app: From `build_app`.
        host: Address to listen at.
        port: Port; 0 takes a free one.
        grace: Most seconds that running requests get after a signal.
        announce: Told the address once the server listens.

    Raises:
        GlotfuseError: The address cannot be listened at, or the engine does not start.
    """
    listener = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    server = GracefulServer(server_config(app), app.state.service, grace, lambda: announce(address))
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
    if not server.started:
        raise GlotfuseError("Expected the engine to start; it did not. The lines above say why.")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise GlotfuseError(
            f"Expected to listen at {host}:{port}; found: {error.strerror or error}. Choose another --host or --port."
        ) from None
    return listener
