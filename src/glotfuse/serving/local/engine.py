"""The in-process engine: encoder, fusion and LM in this process, on one worker thread.

Generation runs step by step; requests join and leave between two steps (continuous batching). Label scores run in
batches of their own between those steps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from glotfuse.inputs.batch import PreparedExample
from glotfuse.model.generation import end_ids
from glotfuse.serving.answer_text import AnswerText
from glotfuse.serving.batcher import Batcher, BatchLimits, QueueRoom, for_company
from glotfuse.serving.encoding import context_length, prepare
from glotfuse.serving.engine import SHUTTING_DOWN, UnavailableError
from glotfuse.serving.local.decoding import Decoder, Row
from glotfuse.serving.local.sampling import Sampler
from glotfuse.serving.model_engine import ModelEngine
from glotfuse.serving.requests import ClassifyRequest, FinishReason, GenerateRequest, Piece

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from glotfuse.model.classification import Classification

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    """One generation from admission to its last piece."""

    row: Row
    text: AnswerText
    ends: frozenset[int]
    max_new_tokens: int
    context: int | None
    pieces: asyncio.Queue[Piece | Exception] = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.monotonic)
    abandoned: bool = False

    def piece(self) -> Piece:
        """What the row's last token adds to the answer."""
        ids = self.row.ids
        reason: FinishReason | None = None
        if ids[-1] in self.ends:
            new, reason = self.text.finish(), "stop"
        else:
            new = self.text.add_tokens(ids[-1:])
            if self.text.stopped:
                reason = "stop"
            elif len(ids) >= self.max_new_tokens or self._is_full():
                new, reason = new + self.text.finish(), "length"
        return Piece(new, reason, self.row.num_prompt, len(ids), self.row.query.example.truncated)

    def _is_full(self) -> bool:
        """Whether the LM has no position left to read the last token at."""
        return self.context is not None and self.row.num_prompt + len(self.row.ids) > self.context


class LocalEngine(ModelEngine):
    """Answers with the model itself.

    Args:
        model: The fused model; nothing else may use it meanwhile.
        name: What clients call it.
        limits: Most answers generated at once and most label scores of a batch; how long a first request waits for
            company; how many requests, and texts to label, may wait.
        on_batch: Told kind (`generate`, once per step, or `classify`) and size of each batch.
    """

    def __init__(
        self,
        model: FusedLM,
        *,
        name: str,
        limits: BatchLimits | None = None,
        on_batch: Callable[[str, int], None] = lambda _kind, _size: None,
    ):
        super().__init__(model, name, "local")
        self._limits = limits or BatchLimits()
        self._on_batch = on_batch
        self._decoder = Decoder(model)
        self._classifier: Batcher[tuple[FusedLM, PreparedExample], Classification] = Batcher(
            _classify,
            self._worker,
            self._limits,
            key=lambda item: id(item[0]),
            on_batch=lambda size: on_batch("classify", size),
        )
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._reading = 0
        self._room = QueueRoom(self._limits, 1.0)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the loop and answers one text each way, so that the first client need not wait for it."""
        self._task = asyncio.create_task(self._serve())
        text = self._first_text()
        async for _ in self.generate(GenerateRequest(text, max_new_tokens=2)):
            pass
        if self._model.labels:
            await self.classify(ClassifyRequest((text,)))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        """Yields an answer piece by piece; see `Engine`."""
        self._check_open()
        self._room.check(len(self._waiting) + self._reading)
        self._reading += 1
        try:
            job = await self.on_reader(lambda: self._job(request))
        finally:
            self._reading -= 1
        self._check_open()
        self._waiting.append(job)
        self._wake.set()
        try:
            while True:
                piece = await job.pieces.get()
                if isinstance(piece, Exception):
                    raise piece
                if piece.text or piece.finish_reason:
                    yield piece
                if piece.finish_reason:
                    return
        finally:
            job.abandoned = True
            if job in self._waiting:
                self._waiting.remove(job)
            self._wake.set()

    async def classify(self, request: ClassifyRequest) -> list[Classification]:
        """One classification per text, in order; see `Engine`."""
        self._classifier.check_room(len(request.texts))

        def read() -> list[tuple[FusedLM, PreparedExample]]:
            view = self._view(request.labels, request.instruction)
            return [(view, prepare(view, text, request.language, view.prompt).example) for text in request.texts]

        return await self._classifier.submit(await self.on_reader(read))

    async def healthy(self) -> bool:
        """Whether the loop runs."""
        return not self._closed and self._task is not None and not self._task.done()

    def load(self) -> dict[str, int]:
        """Requests that wait (and texts to label), and answers that are being generated."""
        return {
            "waiting": len(self._waiting) + self._reading + self._classifier.waiting,
            "running": len(self._running),
        }

    async def close(self) -> None:
        """Stops; whatever waits or runs gets an `UnavailableError`."""
        self._closed = True
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._classifier.close()
        self._end_threads()

    def _job(self, request: GenerateRequest) -> _Job:
        prompt = self._model.prompt_for(request.instruction)
        query = prepare(self._model, request.text, request.language, prompt)
        tokenizer = self._model.lm.tokenizer
        return _Job(
            Row(query, Sampler(self._model, request)),
            AnswerText(tokenizer, request.stop),
            end_ids(self._model, prompt),
            request.max_new_tokens,
            context_length(self._model),
        )

    def _oldest(self) -> float | None:
        return self._waiting[0].arrived if self._waiting and not self._closed else None

    async def _serve(self) -> None:
        """Steps as long as there is something to do; a failed step ends the answers in it, not the loop."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not self._running and not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            if not self._running:  # a first step waits a little for company
                await for_company(self._wake, self._limits, self._oldest, lambda: len(self._waiting))
            gone = [job for job in self._running if job.abandoned]
            self._running = [job for job in self._running if not job.abandoned]
            new: list[_Job] = []
            while self._waiting and len(self._running) + len(new) < self._limits.max_batch_size:
                new.append(self._waiting.popleft())
            await loop.run_in_executor(self._worker, self._decoder.leave, [job.row for job in gone])
            await self._advance(new)
        for job in [*self._running, *self._waiting]:
            job.pieces.put_nowait(UnavailableError(SHUTTING_DOWN))
        self._running, self._waiting = [], deque()

    async def _advance(self, new: list[_Job]) -> None:
        """One step of the running rows, then the prompts of the new ones; each gets a token."""
        loop = asyncio.get_running_loop()
        if self._running:
            self._on_batch("generate", len(self._running))
            try:
                await loop.run_in_executor(self._worker, self._decoder.step)
            except Exception as error:
                await self._fail(self._running, error)
        failed = await self._join(new)
        self._running += [job for job in new if job not in failed]
        finished = [job for job in self._running if self._hand_out(job)]
        if finished:
            self._running = [job for job in self._running if job not in finished]
            await loop.run_in_executor(self._worker, self._decoder.leave, [job.row for job in finished])

    async def _join(self, new: list[_Job]) -> list[_Job]:
        """Lets jobs join, one by one if they fail together; returns those that fail alone."""
        if not new:
            return []
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._worker, self._decoder.join, [job.row for job in new])
        except Exception as error:
            if len(new) == 1:
                await self._fail(new, error)
                return new
            for job in new:
                job.row = replace(job.row, ids=[])
            return [failed for job in new for failed in await self._join([job])]
        return []

    async def _fail(self, jobs: list[_Job], error: Exception) -> None:
        logger.exception("%d answers failed in one step", len(jobs), exc_info=error)
        for job in jobs:
            job.pieces.put_nowait(error)
        await asyncio.get_running_loop().run_in_executor(self._worker, self._decoder.leave, [job.row for job in jobs])
        self._running = [job for job in self._running if job not in jobs]

    def _hand_out(self, job: _Job) -> bool:
        """Hands a job's newest piece to its reader; whether the job is finished."""
        if job.abandoned:
            return False  # the next step takes it out
        piece = job.piece()
        job.pieces.put_nowait(piece)
        if piece.finish_reason:
            self._room.took(time.monotonic() - job.arrived)
        return piece.finish_reason is not None


def _classify(batch: list[tuple[FusedLM, PreparedExample]]) -> list[Classification]:
    """Scores texts that share one view of the model."""
    view = batch[0][0]
    return view.classify_prepared([example for _, example in batch], batch_size=len(batch))
