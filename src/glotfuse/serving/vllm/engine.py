"""The vLLM engine: encoder, fusion and prompt here, the LM on an unmodified vLLM server.

What the LM reads is sent as embeddings of the whole prompt (head, span, plain text, tail) to `/v1/completions`. The
server batches, so nothing waits for others here but the encoder's batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from glotfuse.errors import PromptError
from glotfuse.model.classification import Classification, embed_for_probe, with_probe
from glotfuse.model.generation import end_ids
from glotfuse.serving.batcher import Batcher, BatchLimits
from glotfuse.serving.encoding import Query, embed, prepare
from glotfuse.serving.engine import OverloadedError, UnavailableError
from glotfuse.serving.model_engine import ModelEngine
from glotfuse.serving.requests import ClassifyRequest, GenerateRequest, Piece
from glotfuse.serving.vllm.check import Served, check_server, drop_body
from glotfuse.serving.vllm.client import VllmClient
from glotfuse.serving.vllm.protocol import (
    answer_pieces,
    generation_body,
    payload,
    question_body,
    read_log_probabilities,
)
from glotfuse.serving.vllm.scoring import Question, ScorePlan

if TYPE_CHECKING:
    from glotfuse.api import FusedLM

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Job:
    """A text to encode, and what the LM reads after the prompt, for each thing to ask."""

    query: Query
    prefixes: tuple[tuple[int, ...], ...] = ((),)


@dataclass(frozen=True)
class _Encoded:
    payloads: list[str]
    """The prompt followed by each prefix."""
    num_prompt: int
    """Positions of the prompt alone."""
    num_positions: int
    """Of the longest payload."""


class VllmEngine(ModelEngine):
    """Answers with a vLLM server that serves the LM.

    Once the server is known to serve the right LM, the local LM keeps only its input embeddings: the model can no
    longer answer by itself.

    Args:
        model: The fused model; nothing else may use it meanwhile.
        url: Address of the server, with or without `/v1`.
        model_name: The LM's name on the server; None takes the only one there.
        api_key: The server's key.
        name: What clients call the fused model.
        limits: Batches and queue of the encoder.
        max_requests: Most requests under way; further ones are refused with an `OverloadedError`.
        timeout: Most seconds that the server may take between two pieces of an answer.
        keep_lm: Whether the local LM stays whole.
        on_batch: Told kind (`encode`) and size of each batch.
    """

    def __init__(
        self,
        model: FusedLM,
        url: str,
        model_name: str | None = None,
        api_key: str | None = None,
        *,
        name: str = "glotfuse",
        limits: BatchLimits | None = None,
        max_requests: int = 256,
        timeout: float = 120.0,
        keep_lm: bool = False,
        on_batch: Callable[[str, int], None] = lambda _kind, _size: None,
    ):
        super().__init__(model, name, "vllm")
        self._model_name = model_name
        self._max_requests = max_requests
        self._keep_lm = keep_lm
        self._client = VllmClient(url, api_key=api_key, timeout=timeout, max_connections=max_requests)
        self._batcher: Batcher[_Job, _Encoded] = Batcher(
            self._encode,
            self._worker,
            limits,
            key=lambda job: job.query.prompt,
            on_batch=lambda size: on_batch("encode", size),
        )
        self._served: Served | None = None
        self._running = 0

    async def start(self) -> None:
        """Makes sure that the server serves the right LM, frees the local one, and encodes a first text.

        Raises:
            UnavailableError: The server cannot be used.
            BackboneError: It serves another LM.
        """
        served = await check_server(self._client, self._model, self._model_name)
        logger.info(
            "vLLM at %s serves %s; log-probabilities differ from the local LM's by %.1e on average.",
            self._client.url,
            served.name,
            served.difference,
        )
        config = getattr(self._model.lm.model, "generation_config", None)
        if (penalty := getattr(config, "repetition_penalty", None)) not in (None, 1.0):
            logger.warning(
                "The LM's generation config asks for a repetition penalty of %s, which is not passed on: vLLM cannot "
                "tell the tokens of a prompt that comes as embeddings. Generated text may differ from the local "
                "engine's.",
                penalty,
            )
        if self._model.no_repeat_ngram_size:
            logger.warning(
                "The checkpoint asks for no repeated %d-grams in answers, which vLLM cannot do: generated text may "
                "loop where the local engine's does not.",
                self._model.no_repeat_ngram_size,
            )
        if not self._keep_lm:
            freed = await asyncio.get_running_loop().run_in_executor(self._worker, drop_body, self._model.lm)
            logger.info("Freed %.0f MB of the local LM, which is not needed any more.", freed / 1e6)
        self._served = served
        async for _ in self.generate(GenerateRequest(self._first_text(), max_new_tokens=2)):
            pass

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        """Yields an answer piece by piece; see `Engine`."""
        with self._slot() as served:

            def read() -> tuple[_Job, list[int]]:
                prompt = self._model.prompt_for(request.instruction)
                job = _Job(prepare(self._model, request.text, request.language, prompt))
                return job, sorted(end_ids(self._model, prompt))

            job, ends = await self.on_reader(read)
            (encoded,) = await self._batcher.submit([job])
            room = self._room(served, encoded)
            body = {
                **generation_body(request, ends, min(request.max_new_tokens, room)),
                "model": served.name,
                "prompt_embeds": encoded.payloads,
            }
            async with (
                aclosing(self._client.stream(body)) as chunks,
                aclosing(answer_pieces(chunks, request, encoded.num_prompt, job.query.example.truncated)) as ps,
            ):
                async for piece in ps:
                    yield piece

    async def classify(self, request: ClassifyRequest) -> list[Classification]:
        """One classification per text, in order; see `Engine`."""
        with self._slot() as served:
            self._batcher.check_room(len(request.texts))

            def read() -> tuple[FusedLM, ScorePlan, list[_Job]]:
                view = self._view(request.labels, request.instruction)
                plan = ScorePlan.of(view.label_ids, single=not served.picks_tokens)
                queries = [prepare(view, text, request.language, view.prompt) for text in request.texts]
                return view, plan, [_Job(query, plan.prefixes) for query in queries]

            view, plan, jobs = await self.on_reader(read)
            encoded = await self._batcher.submit(jobs)
            scores = await _together([self._scores(served, plan, each) for each in encoded])
            examples = [job.query.example for job in jobs]
            embeddings = await self.on_worker(lambda: embed_for_probe(view, examples))
            normalised = with_probe(view, torch.tensor(scores), embeddings).tolist()
            return [
                Classification.of(view.labels, row, example.truncated)
                for row, example in zip(normalised, examples, strict=True)
            ]

    async def healthy(self) -> bool:
        """Whether the vLLM server can answer."""
        return not self._closed and self._served is not None and await self._client.healthy()

    def load(self) -> dict[str, int]:
        """Texts that wait for the encoder, and requests under way."""
        return {"waiting": self._batcher.waiting, "running": self._running}

    async def close(self) -> None:
        """Stops; whatever waits or runs gets an `UnavailableError`."""
        self._closed = True
        await self._batcher.close()
        await self._client.close()
        self._end_threads()

    @contextmanager
    def _slot(self) -> Iterator[Served]:
        self._check_open()
        if self._served is None:
            raise UnavailableError("Expected an engine that was started; found one that was not.")
        if self._running >= self._max_requests:
            raise OverloadedError(f"Expected at most {self._max_requests} requests under way. Ask again in 1 s.", 1)
        self._running += 1
        try:
            yield self._served
        finally:
            self._running -= 1

    def _encode(self, jobs: list[_Job]) -> list[_Encoded]:
        """Prompts and what follows them, as a server reads them; runs on the worker."""
        rows = embed(self._model, [job.query for job in jobs])
        return [self._pack(row, job.prefixes) for row, job in zip(rows, jobs, strict=True)]

    @torch.inference_mode()
    def _pack(self, prompt: torch.Tensor, prefixes: Sequence[tuple[int, ...]]) -> _Encoded:
        payloads = []
        for prefix in prefixes:
            ids = torch.tensor(prefix, dtype=torch.long, device=prompt.device)
            payloads.append(payload(torch.cat([prompt, self._model.lm.embed(ids).to(prompt.dtype)])))
        return _Encoded(payloads, len(prompt), len(prompt) + max(map(len, prefixes)))

    def _room(self, served: Served, encoded: _Encoded) -> int:
        """Tokens that may follow.

        Raises:
            PromptError: There is no room for one.
        """
        if served.max_length is None:
            return 1 << 30
        room = served.max_length - encoded.num_positions
        if room < 1:
            raise PromptError(
                f"Expected a prompt of less than {served.max_length} tokens, as the vLLM server was started; found "
                f"{encoded.num_positions}. Shorten text or instruction, or start it with a larger `--max-model-len`."
            )
        return room

    async def _scores(self, served: Served, plan: ScorePlan, encoded: _Encoded) -> list[float]:
        """Log-probability of every label word after one text."""
        self._room(served, encoded)
        found: dict[tuple[int, int], float] = {}
        for answered in await _together([self._ask(served, question, encoded) for question in plan.questions]):
            found.update(answered)
        return plan.scores(found)

    async def _ask(self, served: Served, question: Question, encoded: _Encoded) -> dict[tuple[int, int], float]:
        body = {
            **question_body(question.token_ids, single=not served.picks_tokens),
            "model": served.name,
            "prompt_embeds": [encoded.payloads[place] for place in question.places],
        }
        answers = read_log_probabilities(await self._client.complete(body), len(question.places))
        return {
            (p, token): value for p, row in zip(question.places, answers, strict=True) for token, value in row.items()
        }


async def _together(works: Sequence[Any]) -> list[Any]:
    """Results of coroutines that run side by side; when one fails or this is cancelled, the others are too."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
