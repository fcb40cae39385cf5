"""The interface of engines: what answers requests behind the HTTP routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from glotfuse.errors import GlotfuseError
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece

if TYPE_CHECKING:
    from glotfuse.model.classification import Classification


class OverloadedError(GlotfuseError):
    """The queue is full: nothing was started, and the same request may come again later (HTTP 429).

    Args:
        message: What is full.
        retry_after: Seconds after which there should be room.
    """

    def __init__(self, message: str, retry_after: int = 1):
        super().__init__(message)
        self.retry_after = retry_after


SHUTTING_DOWN = "Expected a running server; it is shutting down. Ask again elsewhere or later."


class UnavailableError(GlotfuseError):
    """The engine cannot answer now: it shuts down, or what it needs is out of reach (HTTP 503)."""


@dataclass(frozen=True)
class ModelDescription:
    """What is served."""

    name: str
    """The name that clients ask for."""
    encoder: str
    lm: str
    labels: tuple[str, ...]
    """Label words, empty for a model that only generates."""
    columns: tuple[str, ...]
    """Columns of an input; a plain text is enough where there is one."""
    max_length: int
    """Most encoder tokens of an input; longer texts are cut."""
    engine: str
    """`local` or `vllm`."""


class Engine(Protocol):
    """Answers requests.

    A request that a user must mend raises a `GlotfuseError` (HTTP 400); `OverloadedError` and `UnavailableError` are
    the exceptions. `generate` and `classify` raise before their first result if at all possible.
    """

    @property
    def description(self) -> ModelDescription:
        """What is served."""

    async def start(self) -> None:
        """Makes ready to answer; warms up once.

        Raises:
            GlotfuseError: It cannot.
        """

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        """Yields an answer piece by piece; the joined texts are the answer, and the last piece says why it ended.

        Closing the generator (`aclose`) or cancelling the task that waits for it stops the work and frees its slot.
        """

    async def classify(self, request: ClassifyRequest) -> list[Classification]:
        """One classification per text, in order; cancelling stops the work that has not begun."""

    async def healthy(self) -> bool:
        """Whether requests can be answered now."""

    def load(self) -> dict[str, int]:
        """How much is under way: `waiting` and `running` requests, for the metrics."""

    async def close(self) -> None:
        """Stops: whatever still waits or runs gets an `UnavailableError`."""
