"""FusedModel: from token ids of text in any language to the LM's logits.

Shapes: B batch, T encoder tokens, S+1 span positions with boundary, X plain-text tokens, K tail tokens, A answer
tokens, C head tokens, M positions after the head, H LM width, V vocabulary, N answer tokens of the whole batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse.backbones import LM, Encoder, PrefixCache
from glotfuse.backbones.placement import device_map
from glotfuse.backbones.prefix_cache import HeadCaches
from glotfuse.errors import PromptError
from glotfuse.fusion import BoundaryOnly, Fusion, MixerOutput, Span
from glotfuse.inputs.batch import Batch, PreparedExample, prepare
from glotfuse.inputs.padding import IGNORED
from glotfuse.inputs.prompts import Prompt, build_prompt
from glotfuse.inputs.reader import InputReader, Text
from glotfuse.model.probe import Probe
from glotfuse.model.sequences import Sequences, own_or_shared, pad_right, with_heads
from glotfuse.model.state_cache import RoundedStates

_ANY_LABELS = "Which topic is this text about? Answer with one of: {labels}."


class FusedModel(nn.Module):
    """A frozen encoder, a trained fusion and a frozen LM.

    Args:
        encoder: The frozen encoder.
        fusion: Mixer, projector and boundary; or the boundary alone, for an LM that reads the plain text itself.
        lm: The frozen LM.
        prompt: Head, tail and label tokenisation.
        reader: Template and length limit of the encoder's input.
        labels: Label words, empty for a model that only generates.
        settings: What built prompt and reader, as plain values, for the checkpoint.
    """

    def __init__(
        self,
        encoder: Encoder,
        fusion: Fusion | BoundaryOnly,
        lm: LM,
        prompt: Prompt,
        reader: InputReader,
        labels: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.fusion: Fusion | BoundaryOnly = fusion.to(lm.device)
        self.lm = lm
        self.prompt = prompt
        self.reader = reader
        self.labels = tuple(labels)
        self.settings = dict(settings or {})
        self.label_ids = prompt.label_ids(self.labels)
        self.cache_head = True
        self.state_cache: RoundedStates | None = None
        self.branching: bool | None = None
        self.gradient_checkpointing = False
        self.objective: Callable[[FusedModel, Batch, Tensor | int | None], dict[str, Tensor]] | None = None
        self.probe: Probe | None = None
        self.reading: Fusion | None = None
        """The fusion of the stage before a task, which follows other instructions than the trained one."""
        self._head_caches = HeadCaches()

    @property
    def device(self) -> torch.device:
        """Where the LM is; the fusion is with it."""
        return self.lm.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the LM's embeddings."""
        return self.lm.dtype

    @property
    def hf_device_map(self) -> dict[str, Any]:
        """Devices of all parts where accelerate placed some, which tells the Trainer to leave them there.

        Raises:
            AttributeError: Nothing was placed. Other libraries ask by `hasattr`.
        """
        return {"fusion": str(self.lm.device), **device_map(encoder=self.encoder, lm=self.lm)}

    @property
    def mixing(self) -> Fusion:
        """The fusion of a model that reads the encoder (`fusion.reads_encoder`)."""
        return cast(Fusion, self.fusion)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves and casts what can be; the fusion stays with the LM, wherever that is."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.fusion.to(self.lm.device)
        if self.reading is not None:
            self.reading.to(self.lm.device)
        self._head_caches.clear()
        return self

    def hidden_states(self, encoder_ids: Tensor, encoder_mask: Tensor) -> list[Tensor]:
        """States (B,T,D) of the layers that the mixer reads, from the cache where there is one."""
        if self.state_cache is not None:
            states = self.state_cache(encoder_ids, encoder_mask)
        else:
            states = self.encoder(encoder_ids, encoder_mask, self.mixing.mixer.layers)
        return [x.to(self.device) for x in states]

    @contextmanager
    def reading_states(self, cache: RoundedStates | None) -> Iterator[None]:
        """Hidden states come from this cache inside, or from the encoder alone."""
        before, self.state_cache = self.state_cache, cache
        try:
            yield
        finally:
            self.state_cache = before

    def span(self, batch: Batch, prompt: Prompt | None = None) -> Span:
        """The span embeddings (B,S+1,H), their mask and the layer weights; `reading` makes them for other prompts."""
        mask = batch.encoder_mask.to(self.device)
        if not self.fusion.reads_encoder:
            return cast(Span, self.fusion(mask))
        fusion = self.mixing
        if self.reading is not None and prompt is not None and prompt.head_ids != self.prompt.head_ids:
            fusion = self.reading
        if self.state_cache is None and not torch.is_grad_enabled():
            weights = fusion.mixer.shared_weights()
            if weights is not None:
                return self._span_of_sum(batch, fusion, weights)
        return cast(Span, fusion(self.hidden_states(batch.encoder_ids, batch.encoder_mask), mask))

    def _span_of_sum(self, batch: Batch, fusion: Fusion, weights: Tensor) -> Span:
        """The span by layer weights (L,) that no token changes: layers are added up while the encoder runs."""
        mask = batch.encoder_mask.to(self.device)
        states = self.encoder.sum_layers(batch.encoder_ids, batch.encoder_mask, weights, fusion.ready)
        return fusion.project(MixerOutput(states * mask.unsqueeze(-1), weights), mask)

    def keep_reading(self, weights: Mapping[str, Tensor]) -> None:
        """Keeps a fusion of these weights, with the trained one's settings, for other instructions."""
        reading = copy.deepcopy(self.mixing).requires_grad_(False).eval()
        reading.load_state_dict(dict(weights))
        self.reading = reading

    def assemble(self, batch: Batch, prompt: Prompt | None = None) -> Sequences:
        """Packs (own head) | span | plain text | tail | answer of every row, without gaps, padding at the right."""
        prompt = prompt or self.prompt
        span = self.span(batch, prompt)
        tail = torch.tensor(prompt.tail_ids, dtype=torch.long, device=self.device).expand(len(span.mask), -1)
        constant = torch.cat([batch.text_ids.to(self.device), tail], dim=1)
        answer = batch.answer_ids.to(self.device)
        ids = torch.cat([constant, answer], dim=1)
        sequences = pad_right(
            torch.cat([span.embeddings.to(self.lm.dtype), self.lm.embed(ids.clamp_min(0))], dim=1),
            torch.cat([span.mask, ids != IGNORED], dim=1),
            F.pad(answer, (span.mask.shape[1] + constant.shape[1], 0), value=IGNORED),
        )
        if batch.head_ids is None:
            return sequences
        heads = own_or_shared(batch.head_ids.to(self.device), self._head_ids(prompt))
        return with_heads(sequences, heads, self.lm.embed)

    def run_lm(
        self, sequences: Sequences, keep: Tensor, prompt: Prompt | None = None, *, headed: bool = False
    ) -> tuple[Tensor, Any]:
        """Runs the LM over head and sequences.

        The head's keys and values are computed once per prompt and reused, where the LM allows it.

        Args:
            sequences: What follows the head.
            keep: (B,M), true where logits are read.
            prompt: The prompt, the model's own by default.
            headed: Whether the sequences have their heads already.

        Returns:
            Logits (N,V) at the kept positions, and the filled cache or None.
        """
        prompt = prompt or self.prompt
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        if headed:
            return self.lm.run(sequences.embeddings, keep, recompute=recompute), None
        # an adapter's keys and values get a gradient; one token is read as fast as it is copied
        anew = torch.is_grad_enabled() and (self.lm.learning or len(prompt.head_ids) == 1)
        if not (recompute or anew) and (head := self.head_cache(prompt)) is not None:
            cache = head.expand(len(keep))
            return self.lm.run(sequences.embeddings, keep, cache=cache, start=head.length), cache
        whole = self.with_head(sequences, prompt)
        keep = F.pad(keep, (len(prompt.head_ids), 0))
        return self.lm.run(whole.embeddings, keep, recompute=recompute), None

    def with_head(self, sequences: Sequences, prompt: Prompt) -> Sequences:
        """The sequences with the prompt head in front of every row."""
        return with_heads(sequences, self._head_ids(prompt).expand(len(sequences.mask), -1), self.lm.embed)

    def _head_ids(self, prompt: Prompt) -> Tensor:
        return torch.tensor(prompt.head_ids, dtype=torch.long, device=self.device)

    def head_cache(self, prompt: Prompt) -> PrefixCache | None:
        """Keys and values of the prompt head (none, if it is empty); None where reuse is off or does not work."""
        if not self.cache_head:
            return None
        return self._head_caches.of(self.lm, prompt.head_ids)

    def forward(
        self,
        encoder_ids: Tensor,
        encoder_mask: Tensor,
        text_ids: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        head_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Prefix-LM loss on the answer tokens only, or the loss that `objective` gives in its place.

        Args:
            encoder_ids: (B,T), right-padded.
            encoder_mask: (B,T).
            text_ids: (B,X), padded with -100.
            labels: (B,1+A): a column of -100, then the answer tokens, padded with -100. As everywhere in
                transformers, a label is predicted from the position before it; the first column stands for the
                prompt's last position.
            num_items_in_batch: Answer tokens over all accumulated batches; None takes this batch's.
            head_ids: (B,C), prompt heads of the rows' own, padded with -100.

        Returns:
            `loss` (scalar) and `logits` (N,V) at the answer positions.
        """
        batch = Batch(encoder_ids, encoder_mask.bool(), text_ids, labels[:, 1:], head_ids)
        if self.objective is not None:
            return self.objective(self, batch, num_items_in_batch)
        sequences = self.assemble(batch)
        following = sequences.next_targets()
        keep = following != IGNORED
        logits, _ = self.run_lm(sequences, keep, headed=head_ids is not None)
        total = F.cross_entropy(logits, following[keep], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else keep.sum()
        return {"loss": total / count, "logits": logits}

    def train(self, mode: bool = True) -> Self:
        """Sets the fusion's mode; encoder and LM stay in evaluation mode, but for the dropout of an adapter."""
        super().train(mode)
        self.encoder.eval()
        if self.reading is not None:
            self.reading.eval()
        self.lm.train(mode)
        if self.lm.learning:
            self._head_caches.clear()  # of an adapter that has changed since
        return self

    @contextmanager
    def answering(self) -> Iterator[None]:
        """No gradients and no dropout inside, whatever the mode outside."""
        was_training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.train(was_training)

    def prepare(
        self, texts: Sequence[Text], language: str | None = None, prompt: Prompt | None = None
    ) -> list[PreparedExample]:
        """Checks and tokenizes inputs of one language."""
        rows = [self.reader.fields(text) for text in texts]
        columns = self.probe is not None
        return prepare(self.reader, prompt or self.prompt, rows, language=language, columns=columns)

    def prompt_for(self, instruction: str | None) -> Prompt:
        """The trained prompt, or the same style around another instruction."""
        if instruction is None:
            return self.prompt
        return build_prompt(
            self.lm.tokenizer,
            instruction=instruction,
            labels=self.labels,
            include_text=self.prompt.text_separator is not None,
            **{key: value for key, value in self.settings.get("prompt", {}).items() if key in ("style", "tail")},
        )

    @property
    def trained_instruction(self) -> str | None:
        """The instruction of the prompt that was trained, with `{labels}` for its label words; None without one."""
        settings = self.settings.get("prompt", {})
        own: str | None = settings.get("instruction")
        if own is not None:
            return own or None
        return (self.settings.get("instruction") or None) if settings.get("style", "chat") == "chat" else None

    @property
    def no_repeat_ngram_size(self) -> int:
        """So many tokens in a row come once in a free answer; 0 lets them come again."""
        return int(self.settings.get("prompt", {}).get("no_repeat_ngram_size", 0))

    def with_labels(self, labels: Sequence[str] | None, instruction: str | None = None) -> Self:
        """A model that shares the weights of this one, with other label words or another instruction.

        `prompt`, `labels` and `label_ids` of the result belong together. The instruction that was trained is filled
        with the new label words.

        Args:
            labels: Label words; None takes the model's own.
            instruction: English text before the span, with `{labels}` for the label words; None takes the trained one.

        Raises:
            PromptError: The label words cannot be told apart, or there are none at all.
        """
        if labels is None and not self.labels:
            raise PromptError("Expected label words in `labels`, for the model was trained without; found none.")
        if instruction is None and (labels is None or tuple(labels) == self.labels):
            return self
        if instruction is None and "{labels}" not in (self.trained_instruction or ""):
            instruction = _ANY_LABELS  # the trained one asks for something else
        view = copy.copy(self)
        view.labels = tuple(labels) if labels is not None else self.labels
        view.prompt = view.prompt_for(self.trained_instruction if instruction is None else instruction)
        view.label_ids = view.prompt.label_ids(view.labels)
        view.branching = None
        if self.probe is not None and view.labels != self.labels:  # it knows the labels that were trained alone
            known = sorted(view.labels) == sorted(self.labels)
            view.probe = self.probe.for_labels([self.labels.index(label) for label in view.labels]) if known else None
        return view
