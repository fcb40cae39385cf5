"""The HTTP side of a vLLM server: completions, streamed or not, with retries and errors in plain words."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator
from typing import Any, NoReturn

from glotfuse.errors import ConfigError, PromptError
from glotfuse.serving.engine import OverloadedError, UnavailableError

try:
    import httpx
except ImportError as error:
    raise ConfigError(
        "Expected the package httpx for the vLLM engine; found none. Install it with: pip install 'glotfuse[serve]'"
    ) from error

logger = logging.getLogger(__name__)

_BUSY = (429, 503)
_ATTEMPTS = 4
"""How often a request is sent while the server is out of reach or busy."""
_FIRST_PAUSE = 0.25
"""Seconds before the first retry; each further one waits twice as long."""
_LONGEST_PAUSE = 10.0
_MOST_MESSAGE = 500


class VllmClient:
    """Asks a vLLM server, with many requests at once over kept connections.

    Closing a stream, or cancelling the task that waits for an answer, closes the connection, upon which vLLM stops
    the work.

    Args:
        url: Address of the server, with or without `/v1`.
        api_key: The server's `--api-key`.
        timeout: Most seconds between two pieces of an answer.
        max_connections: Most requests at once; further ones wait for a connection.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout: float = 120.0, max_connections: int = 256):
        self.url = url.rstrip("/").removesuffix("/v1")
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(
                f"Expected the address of a vLLM server, such as http://127.0.0.1:8000; found {url!r}. "
                "Give it with its scheme, http:// or https://."
            )
        self._closing: set[asyncio.Future[None]] = set()
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        )

    async def models(self) -> list[dict[str, Any]]:
        """What the server serves: names (`id`) and `max_model_len`."""
        response = await self._send("GET", "/v1/models")
        try:
            cards = response.json()["data"]
            if isinstance(cards, list) and all(isinstance(card, dict) and "id" in card for card in cards):
                return cards
        except (ValueError, KeyError, TypeError):
            pass
        raise UnavailableError(
            f"Expected a vLLM server at {self.url}; found a server whose /v1/models answers {response.text[:80]!r}. "
            "Check the address."
        )

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """The whole answer of `/v1/completions`."""
        response = await self._send("POST", "/v1/completions", body)
        answer: dict[str, Any] = response.json()
        return answer

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """The chunks of a streamed answer of `/v1/completions`."""
        response = await self._send("POST", "/v1/completions", {**body, "stream": True}, stream=True)
        try:
            async for event in _events(response):
                if "error" in event:
                    _raise_refusal(self.url, int(event["error"].get("code") or 500), _message(event))
                yield event
        except httpx.HTTPError as error:
            raise UnavailableError(f"The vLLM server at {self.url} broke off its answer: {_reason(error)}.") from error
        finally:
            await self._release(response)

    async def _release(self, response: httpx.Response) -> None:
        """Closes a streamed answer to the end, also for a task that is cancelled meanwhile.

        httpcore would otherwise count its connection as in use for ever.
        """
        closing = asyncio.ensure_future(response.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        await asyncio.shield(closing)

    async def healthy(self) -> bool:
        """Whether the server says that it can answer, asked once."""
        try:
            response = await self._http.get("/health", timeout=5.0)
        except (httpx.HTTPError, RuntimeError):
            return False
        return response.status_code == 200

    async def close(self) -> None:
        """Closes all connections."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._http.aclose()

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, stream: bool = False
    ) -> httpx.Response:
        """Sends until the server takes it.

        Raises:
            OverloadedError: It stays busy.
            UnavailableError: It stays out of reach, fails, or was not started as it must be.
            PromptError: It refuses what was asked.
        """
        request = self._http.build_request(method, path, json=body)
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            pause = _FIRST_PAUSE * 2**attempt * random.uniform(0.75, 1.25)
            try:
                response = await self._http.send(request, stream=stream)
            except (httpx.TimeoutException, httpx.TransportError, RuntimeError) as error:
                if last or not isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
                    _raise_unreachable(self.url, error)
                logger.info("No answer from the vLLM server at %s (%s); asking again.", self.url, _reason(error))
            else:
                if response.status_code < 400:
                    return response
                await response.aread()
                await response.aclose()
                if last or response.status_code not in _BUSY:
                    _raise_refusal(self.url, response.status_code, _body_message(response), _retry_after(response))
                pause = max(pause, min(_retry_after(response), _LONGEST_PAUSE))
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")


async def _events(response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    """The data of server-sent events up to `[DONE]`.

    Lines end at a line feed alone: httpx would also end them at the line separators of Unicode, which may stand in an
    answer.
    """
    rest = b""
    async for part in response.aiter_bytes():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


def _raise_unreachable(url: str, error: Exception) -> NoReturn:
    if isinstance(error, httpx.PoolTimeout):
        raise OverloadedError(f"All connections to the vLLM server at {url} are in use.", 2) from error
    if isinstance(error, httpx.ReadTimeout):
        raise UnavailableError(f"The vLLM server at {url} did not answer in time.") from error
    raise UnavailableError(
        f"Expected a vLLM server at {url}; found none: {_reason(error)}. Start one with "
        "`vllm serve LM --enable-prompt-embeds`, or check the address."
    ) from error


def _raise_refusal(url: str, status: int, message: str, retry_after: float = 1.0) -> NoReturn:
    if status == 429:
        raise OverloadedError(f"The vLLM server at {url} takes no more requests now.", max(1, round(retry_after)))
    if "enable-prompt-embeds" in message:
        raise UnavailableError(
            f"Expected a vLLM server that reads prompt embeddings at {url}; found one that was started without. "
            "Start it with `--enable-prompt-embeds`."
        )
    if status in (401, 403):
        raise UnavailableError(
            f"Expected the API key of the vLLM server at {url}; it answers {status}. Give the key that it was started "
            "with."
        )
    if status == 404:
        raise UnavailableError(f"Expected a vLLM server at {url} with the model asked for; it answers 404: {message}")
    if status in (400, 413, 422):
        raise PromptError(f"The vLLM server refuses the request: {message}")
    raise UnavailableError(f"The vLLM server at {url} failed ({status}): {message}")


def _body_message(response: httpx.Response) -> str:
    try:
        return _message(response.json())
    except ValueError:
        return response.text[:_MOST_MESSAGE]


def _message(body: Any) -> str:
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:_MOST_MESSAGE]


def _retry_after(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:  # a date
        return 1.0


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
