"""A stand-in for a vLLM server: the same routes, answered by a tiny LM that reads the embeddings it is sent.

It computes plainly: whole passes without a cache, one row at a time. Fields, answers and errors are those of vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from torch import Tensor

from glotfuse.backbones import LM


@dataclass
class FakeVllm:
    """What a test can set, and what it can look at afterwards."""

    lm: LM
    takes_embeddings: bool = True
    knows_token_ids: bool = True
    max_model_len: int = 512
    api_key: str | None = None
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the next answers of /v1/completions, before it works again."""
    pause: float = 0.0
    """Seconds before each streamed token."""
    break_after: int | None = None
    """Streamed tokens after which the answer ends too early, with an error event or without a word."""
    silent: bool = False
    off: float = 0.0
    """Added to every log-probability but the last token's of the vocabulary."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    url: str = ""

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> JSONResponse:
            return JSONResponse({})

        @app.get("/v1/models")
        async def models(request: Request) -> JSONResponse:
            if self.api_key and request.headers.get("Authorization") != f"Bearer {self.api_key}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            card = {"id": "tiny", "parent": None, "max_model_len": self.max_model_len}
            return JSONResponse({"object": "list", "data": [card, {**card, "id": "lora", "parent": "tiny"}]})

        @app.post("/v1/completions")
        async def completions(request: Request) -> Any:
            body = await request.json()
            self.bodies.append(body)
            if self.refusals:
                status, headers = self.refusals.pop(0)
                return JSONResponse(_error("busy", status), status, headers)
            try:
                rows = self._rows(body)
            except ValueError as error:
                return JSONResponse(_error(str(error), 400), 400)
            if body.get("stream"):
                return StreamingResponse(self._stream(body, rows[0]), media_type="text/event-stream")
            choices = [{"index": i, **self._score(body, row)} for i, row in enumerate(rows)]
            return JSONResponse({"choices": choices[::-1]})

        return app

    def _rows(self, body: dict[str, Any]) -> list[Tensor]:
        if body["model"] != "tiny":
            raise ValueError(f"no model {body['model']}")
        if "prompt_embeds" not in body:
            return [self.lm.embed(torch.tensor(ids)) for ids in body["prompt"]]
        if not self.takes_embeddings:
            raise ValueError("You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        rows = []
        for text in body["prompt_embeds"]:
            row = torch.load(io.BytesIO(base64.b64decode(text, validate=True)), weights_only=True)
            if row.ndim != 2 or row.shape[1] != self.lm.embedding_size or row.untyped_storage().nbytes() != row.nbytes:
                raise ValueError(f"bad prompt_embeds {tuple(row.shape)}")
            if len(row) >= self.max_model_len or len(row) + body["max_tokens"] > self.max_model_len:
                raise ValueError("This model's maximum context length is exceeded.")
            rows.append(row)
        return rows

    @torch.inference_mode()
    def _log_probabilities(self, row: Tensor) -> Tensor:
        values = self.lm.model(inputs_embeds=row.unsqueeze(0), use_cache=False).logits[0, -1].float().log_softmax(-1)
        values[:-1] += self.off
        return values

    def _score(self, body: dict[str, Any], row: Tensor) -> dict[str, Any]:
        values = self._log_probabilities(row)
        allowed = body.get("allowed_token_ids") or range(len(values))
        chosen = max(allowed, key=lambda token: float(values[token]))
        asked = body.get("logprob_token_ids") if self.knows_token_ids else values.topk(2).indices.tolist()
        if len(asked or ()) > 128:
            raise ValueError("Requested logprob_token_ids of length greater than 128")
        top = {f"token_id:{token}": float(values[token]) for token in [chosen, *(asked or ())]}
        name = f"token_id:{chosen}"
        logprobs = {"tokens": [name], "token_logprobs": [top[name]], "top_logprobs": [top]}
        return {"text": "x", "finish_reason": "length", "logprobs": logprobs}

    async def _stream(self, body: dict[str, Any], row: Tensor) -> AsyncIterator[str]:
        self.running += 1
        try:
            ids: list[int] = []
            shown = ""
            while True:
                await asyncio.sleep(self.pause)
                if len(ids) == self.break_after:
                    if self.silent:
                        return
                    yield f"data: {json.dumps(_error('the engine died', 500))}\n\n"
                    return
                ids.append(int(self._log_probabilities(row).argmax()))
                row = torch.cat([row, self.lm.embed(torch.tensor(ids[-1:]))])
                ended = ids[-1] in body["stop_token_ids"]
                text = self.lm.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
                for stop in body["stop"]:
                    if stop in text:
                        text, ended = text[: text.index(stop)], True
                reason = "stop" if ended else "length" if len(ids) == body["max_tokens"] else None
                if not reason:
                    text = text.rstrip("\ufffd")  # bytes that are no character yet
                choice = {"index": 0, "text": text[len(shown) :], "finish_reason": reason}
                shown = text
                yield f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': len(ids)}})}\n\n"
                if reason:
                    break
            yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': len(ids)}})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1


@contextmanager
def running(fake: FakeVllm) -> Iterator[FakeVllm]:
    """Serves it on a free port while inside."""
    server = uvicorn.Server(uvicorn.Config(fake.app(), port=0, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("The stand-in server did not start.")
        threading.Event().wait(0.01)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join(10)


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "code": status}}
