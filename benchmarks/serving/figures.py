"""From the generator's lines, one per request, to the figures of a table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 0.2
"""The part of the time at the beginning that is not measured."""
MARGIN = 1.5
"""How much longer than the queue's bound an accepted request may take: batches are not all alike."""
REFUSED = 429


@dataclass(frozen=True)
class Request:
    """One request, times in seconds since the first was sent."""

    begun: float
    ended: float
    status: int
    """HTTP status; 0 for none."""
    whole: bool
    """Whether the answer came, and came to its end."""
    first: float | None
    """Seconds to the first text of a stream."""
    tokens: int | None
    retry_after: str | None
    fault: str | None

    @property
    def refused(self) -> bool:
        """Whether the server had no room."""
        return self.status == REFUSED

    @property
    def seconds(self) -> float:
        """From sending it to the answer's last byte."""
        return self.ended - self.begun


@dataclass(frozen=True)
class Sent:
    """All requests of one load, and how many there should be."""

    requests: list[Request]
    sent: int
    counted_by_locust: int


@dataclass(frozen=True)
class Figures:
    """One load: so many clients, each with one request at a time."""

    workload: str
    clients: int
    seconds: float
    """How long clients sent requests; a fifth at the beginning does not count for rate and latency."""
    sent: int
    answered: int
    refused: int
    lost: int
    """Sent, and neither answered to the end nor refused."""
    statuses: dict[int, int]
    faults: dict[str, int]
    without_retry_after: int
    """Refusals that do not say when to come again."""
    measured: int
    """Answers that the rate is of."""
    rate: float
    """Answers per second; nan where none ended in the time that counts."""
    tokens_per_second: float | None
    tokens_per_answer: float | None
    p50: float
    """Seconds."""
    p99: float
    longest: float
    """Of all answers."""
    first_p50: float | None
    first_p99: float | None
    refusal_p99: float | None
    server: dict[str, Any] = field(default_factory=dict)
    """What the server says of itself, and what generator and memory took."""


def read_requests(path: Path) -> Sent:
    """Reads the generator's file.

    Raises:
        ValueError: It has no last line with the number of requests: the generator was stopped before its end.
    """
    lines = [json.loads(line) for line in path.read_text("utf8").splitlines()]
    if not lines or "sent" not in lines[-1]:
        raise ValueError("Expected the generator to count its requests in the end; it did not. Was it stopped?")
    rows = lines[:-1]
    zero = min((row["begun"] for row in rows), default=0.0)
    requests = [
        Request(
            begun=row["begun"] - zero,
            ended=row["ended"] - zero,
            status=row["status"],
            whole=row["whole"],
            first=row["first"],
            tokens=row["tokens"],
            retry_after=row["retry_after"],
            fault=row.get("fault"),
        )
        for row in rows
    ]
    return Sent(sorted(requests, key=lambda request: request.begun), lines[-1]["sent"], lines[-1]["counted_by_locust"])


def summarise(workload: str, clients: int, seconds: float, found: Sent) -> Figures:
    """Figures of one load.

    The rate is that of answers which ended between warm-up and the end of sending. Latencies are of answers that were
    asked for in that time, also where they came later: to leave those out would leave out the slowest.
    """
    begin, answered = WARM_UP * seconds, [request for request in found.requests if request.whole]
    window = seconds - begin
    ended = [request for request in answered if begin <= request.ended <= seconds]
    asked = [request for request in answered if begin <= request.begun <= seconds] or answered
    waits = [request.seconds for request in asked]
    refusals = [request for request in found.requests if request.refused]
    tokens = [request.tokens for request in ended if request.tokens is not None]
    firsts = [request.first for request in asked if request.first is not None]
    return Figures(
        workload=workload,
        clients=clients,
        seconds=seconds,
        sent=found.sent,
        answered=len(answered),
        refused=len(refusals),
        lost=found.sent - len(answered) - len(refusals),
        statuses=dict(sorted(Counter(request.status for request in found.requests).items())),
        faults=dict(Counter(request.fault for request in found.requests if request.fault)),
        without_retry_after=sum(not _is_wait(request.retry_after) for request in refusals),
        measured=len(ended),
        rate=len(ended) / window if ended else math.nan,
        tokens_per_second=sum(tokens) / window if tokens else None,
        tokens_per_answer=sum(tokens) / len(tokens) if tokens else None,
        p50=_percentile(waits, 50) or math.nan,
        p99=_percentile(waits, 99) or math.nan,
        longest=max((request.seconds for request in answered), default=math.nan),
        first_p50=_percentile(firsts, 50),
        first_p99=_percentile(firsts, 99),
        refusal_p99=_percentile([request.seconds for request in refusals], 99),
    )


def longest_wait(room: int, rate: float) -> float:
    """Seconds that a request may take which was taken in last: all that the server takes in, at its own rate.

    Args:
        room: Requests that may wait or run at once, and a batch more for the one that is being gathered.
        rate: Answers per second.
    """
    return MARGIN * room / rate if rate > 0 else math.inf


def _is_wait(value: str | None) -> bool:
    return value is not None and value.isdigit() and int(value) >= 1


def _percentile(values: Sequence[float], part: float) -> float | None:
    return float(np.percentile(values, part)) if values else None
