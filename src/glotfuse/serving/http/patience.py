"""How long the server waits for a client, and for how many."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Limits of a connection. Times are seconds."""

    idle: float = 75.0
    """For the first byte of a request, after connecting or after an answer."""
    head: float = 15.0
    """From a request's first byte to the end of its headers; also for what is left of a body after an early answer."""
    body: float = 30.0
    """From the end of the headers to the end of the body."""
    unread: float = 30.0
    """For taking some more of an answer; without any, the connection is cut."""
    connections: int = 1000
    """Most at once. For one more the idle one that has waited longest is closed; where none is idle it is refused."""
