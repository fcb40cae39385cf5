"""Whether a vLLM server serves the LM that a fusion was trained with, found out by asking it.

Fusion weights fit one LM only, and a server does not tell which weights it has loaded. So the last position of a short
prompt is compared: log-probabilities of the local LM against the server's, for the prompt as tokens and as embeddings.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from glotfuse.errors import BackboneError, PromptError
from glotfuse.serving.engine import UnavailableError
from glotfuse.serving.vllm.protocol import payload, question_body, read_log_probabilities

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from glotfuse.backbones import LM
    from glotfuse.serving.vllm.client import VllmClient

logger = logging.getLogger(__name__)

_NUM_COMPARED = 32
"""Tokens that are compared: half are the local LM's most probable, half are spread over the vocabulary."""
_SURPRISING = 0.1
"""Mean difference in nats that is worth a warning: half precision alone stays below."""
_ANOTHER_LM = 0.5
"""Mean difference in nats that quantisation does not explain."""


@dataclass(frozen=True)
class Served:
    """What was found at the other end."""

    name: str
    """The model's name on the server."""
    max_length: int | None
    """Most tokens of prompt and answer together; None where the server does not say."""
    picks_tokens: bool
    """Whether it gives the log-probabilities of chosen tokens; otherwise they are asked one by one."""
    difference: float
    """Mean absolute difference of log-probabilities to the local LM's, in nats."""


async def check_server(client: VllmClient, model: FusedLM, model_name: str | None) -> Served:
    """Finds the model on the server and compares it with the local LM, which must still be whole.

    Raises:
        UnavailableError: The server cannot be used: out of reach, no such model, prompt embeddings off.
        BackboneError: It serves another LM.
    """
    card = _choose(await client.models(), model_name, client.url)
    ids = [*model.prompt.head_ids, *model.prompt.tail_ids] or model.lm.tokenizer("The")["input_ids"]
    expected = _expected(model.lm, ids)
    asked = list(expected)
    as_tokens = {"model": card["id"], "prompt": [ids]}
    try:
        found = await _ask(client, as_tokens, asked)
        picks = all(token in found for token in asked)
        if not picks:
            logger.warning(
                "The vLLM server at %s does not know `logprob_token_ids`: label scores take a request per token. "
                "A newer vLLM needs one per text.",
                client.url,
            )
            found = await _ask(client, as_tokens, asked, singly=True)
        difference = _compare(expected, found, model, client.url, "the prompt's tokens")
        with torch.inference_mode():
            rows = model.lm.embed(torch.tensor(ids, device=model.device))
        as_embeddings = {"model": card["id"], "prompt_embeds": [payload(rows)]}
        found = await _ask(client, as_embeddings, asked, singly=not picks)
        difference = max(difference, _compare(expected, found, model, client.url, "the prompt's embeddings"))
    except PromptError as error:
        raise BackboneError(
            f"Expected the vLLM server at {client.url} to read the prompt of {_lm(model)}; it refuses: {error} Serve "
            "that LM."
        ) from error
    if difference > _SURPRISING:
        logger.warning(
            "Log-probabilities of the vLLM server at %s differ from the local LM's by %.2f on average: it may be "
            "quantised. Answers will differ too.",
            client.url,
            difference,
        )
    return Served(str(card["id"]), card.get("max_model_len"), picks, difference)


def drop_body(lm: LM) -> int:
    """Frees all weights of an LM but its input embeddings, which are all that prompts for a server need.

    The LM can embed afterwards, and nothing else. Weights that embeddings and output layer share stay.

    Returns:
        Bytes freed; 0 for an LM whose first weights are not the embeddings, which then stays whole.
    """
    kept = {id(tensor) for tensor in _tensors(lm.model.get_input_embeddings())}
    first = next(lm.model.parameters(), None)
    if first is None or id(first) not in kept:  # they tell the LM's device and dtype
        return 0
    freed = 0
    for module in lm.model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or id(tensor) in kept or tensor.is_meta:
                    continue
                freed += tensor.numel() * tensor.element_size()
                empty = torch.empty_like(tensor, device="meta")
                tensors[name] = nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
    for tensor in _tensors(lm.model.get_input_embeddings()):
        tensor.data = tensor.data.clone()  # on a CPU it lies in the mapped file, which would stay for it
    return freed


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _choose(cards: Sequence[dict[str, Any]], name: str | None, url: str) -> dict[str, Any]:
    names = [str(card["id"]) for card in cards]
    if name is not None:
        for card in cards:
            if card["id"] == name:
                return card
        raise UnavailableError(
            f"Expected the model {name!r} on the vLLM server at {url}; found {', '.join(names) or 'none'}."
        )
    whole = [card for card in cards if not card.get("parent")]  # adapters have a parent
    if len(whole) != 1:
        raise UnavailableError(
            f"Expected one model on the vLLM server at {url}; found {', '.join(names) or 'none'}. Name the one to use."
        )
    return whole[0]


@torch.inference_mode()
def _expected(lm: LM, ids: Sequence[int]) -> dict[int, float]:
    """The local LM's log-probabilities after some tokens, of those that are compared."""
    embeddings = lm.embed(torch.tensor([list(ids)], device=lm.device))
    last = torch.zeros(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
    last[:, -1] = True
    values = torch.log_softmax(lm.run(embeddings, last)[0], dim=-1).cpu()
    size = min(len(values), len(lm.tokenizer))
    top = values[:size].topk(min(size, _NUM_COMPARED // 2)).indices.tolist()
    spread = range(0, size, max(1, size // (_NUM_COMPARED // 2)))
    return {token: float(values[token]) for token in dict.fromkeys([*top, *spread])}


async def _ask(
    client: VllmClient, prompt: dict[str, Any], asked: Sequence[int], *, singly: bool = False
) -> dict[int, float]:
    """Log-probabilities of tokens after a prompt, in one request or in one for each token."""
    found: dict[int, float] = {}
    for tokens in [[token] for token in asked] if singly else [asked]:
        answer = await client.complete({**question_body(tokens, single=singly), **prompt})
        found.update(read_log_probabilities(answer, 1)[0])
    return found


def _compare(expected: dict[int, float], found: dict[int, float], model: FusedLM, url: str, what: str) -> float:
    """Mean absolute difference.

    Raises:
        BackboneError: It is too large for the same LM, or a token is missing.
    """
    missing = [token for token in expected if token not in found]
    if missing:
        raise BackboneError(
            f"Expected log-probabilities of chosen tokens from the vLLM server at {url}; found none of {missing[:4]}. "
            "Update vLLM."
        )
    difference = sum(abs(expected[token] - found[token]) for token in expected) / len(expected)
    if not difference <= _ANOTHER_LM:
        raise BackboneError(
            f"Expected the vLLM server at {url} to serve {_lm(model)}; found another LM, or one that is served "
            f"differently: after {what} its log-probabilities differ by {difference:.2f} on average. Serve that LM "
            "with `--logprobs-mode raw_logprobs`, the default. An adapter that was trained with the fusion has to be "
            "merged into it."
        )
    return difference


def _lm(model: FusedLM) -> str:
    identity = model.lm.identity
    revision = f" at {identity.revision}" if identity.revision else ""
    return f"{identity.name}{revision} ({identity.architecture}, width {identity.hidden_size})"
