"""One client's connection: it asks in time, reads in time, and is one of a limited number.

uvicorn waits for ever for a request that has begun and for a client that does not read; and a byte that comes during an
answer keeps it from seeing that the client goes away. `Connection` adds what is missing to uvicorn's protocol over h11.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from glotfuse.serving.http.gate import CROWDED
from glotfuse.serving.http.patience import Patience

_SPARE = 64
"""Connections beyond the limit that still get an answer: a refusal, or health and metrics."""
_HELD = 65_536
"""Bytes after a request that are kept until it is answered; beyond, the client has to wait."""
_MORE_BODY = 5.0
"""Seconds that a body gets beyond its time, for the answer that says so."""


class Connection(H11Protocol):
    """What uvicorn makes for each connection.

    Args:
        patience: Its limits.
        **options: What uvicorn gives.
    """

    def __init__(self, *, patience: Patience, **options: Any):
        super().__init__(**options)
        self.quiet = self.loop.time()
        """When it was opened, or was answered last."""
        self._patience = patience
        self._asking: float | None = None
        self._taken = self.quiet
        self._behind: float | None = None
        self._unsent = 0

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room for the connection, or marks it as one too many.

        The one that has been idle longest goes; one whose request has begun to come in goes after all the others.
        """
        super().connection_made(transport)
        if len(self.connections) <= self._patience.connections:
            return
        idle = [other for other in self.connections if isinstance(other, Connection) and other._can_go(self)]
        if idle:
            min(idle, key=lambda other: (other._asking is not None, other.quiet))._drop()
        elif len(self.connections) > self._patience.connections + _SPARE:
            transport.abort()
        else:
            self.app_state = {**self.app_state, CROWDED: True}

    def data_received(self, data: bytes) -> None:
        """Takes note of when a request begins and when its headers are there."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._taken = self.loop.time()
        self._note()

    def handle_events(self) -> None:
        """Goes on listening during an answer, so that a client that goes away is noticed."""
        super().handle_events()
        if self.flow.read_paused and self.conn.their_state is h11.DONE and len(self.conn.trailing_data[0]) < _HELD:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        self.quiet = self._taken = self.loop.time()
        super().on_response_complete()
        self._note()

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, unless an answer has begun."""
        if self.cycle is not None and self.is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        """The client has read."""
        self._behind = None
        super().resume_writing()

    def check(self, now: float) -> None:
        """Cuts the connection if its time is up.

        Args:
            now: Of the event loop's clock.
        """
        if self._is_unread(now):
            self.transport.abort()
        elif self._is_late(now):
            self._drop()

    def _note(self) -> None:
        """Whether part of a request is there, and since when."""
        partly = self.conn.their_state is not h11.IDLE or bool(self.conn.trailing_data[0])
        if self.is_busy or not partly:
            self._asking = None
        elif self._asking is None:
            self._asking = self.loop.time()

    def _is_late(self, now: float) -> bool:
        if self.is_busy:
            return self.conn.their_state is h11.SEND_BODY and now - self._taken > self._patience.body + _MORE_BODY
        if self._asking is not None:
            return now - self._asking > self._patience.head
        return now - self.quiet > self._patience.idle

    def _is_unread(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if not size:
            self._behind = None
        elif self._behind is None or (size < self._unsent and not self.transport.is_closing()):
            self._behind = now
        self._unsent = size
        return self._behind is not None and now - self._behind > self._patience.unread

    def _can_go(self, newer: Connection) -> bool:
        return self is not newer and not self.is_busy and not self.transport.is_closing()

    def _drop(self) -> None:
        """Closes it; what the client has not read would keep it open, so that is thrown away."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()


def check_all(connections: set[Any], now: float) -> None:
    """Cuts the connections whose time is up."""
    for connection in list(connections):
        if isinstance(connection, Connection):
            connection.check(now)


def most_connections(wanted: int) -> int:
    """As many as wanted, or as the process may open beside files and connections of its own."""
    if sys.platform == "win32":
        return wanted
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if files == resource.RLIM_INFINITY else min(wanted, files * 5 // 8)
