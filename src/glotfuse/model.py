"""FusedLM: the data's way from text in any language to the LM's answer.

Shapes: B batch, T encoder tokens, S+1 span positions with boundary, X plain-text tokens, K tail tokens, A answer
tokens, C head tokens, M positions after the head, H LM width, V vocabulary, N answer tokens of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glotfuse import generation, scoring
from glotfuse.backbones import LM, Encoder, PrefixCache
from glotfuse.features import FeatureCache
from glotfuse.fusion import BoundaryOnly, Fusion, MixerOutput, Span
from glotfuse.inputs import Batch, InputReader, PreparedExample, prepare
from glotfuse.probe import Probe
from glotfuse.prompts import Prompt, build_prompt
from glotfuse.sequences import IGNORED, Sequences, pad_right

Text = str | Mapping[str, str]


class FusedLM(nn.Module):
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
        self.fusion: Any = fusion.to(lm.device)
        self.lm = lm
        self.prompt = prompt
        self.reader = reader
        self.labels = tuple(labels)
        self.settings = dict(settings or {})
        self.label_ids = prompt.label_ids(self.labels)
        self.cache_head = True
        self.features: FeatureCache | None = None
        self.branching: bool | None = None
        self.gradient_checkpointing = False
        self.objective: Callable[[FusedLM, Batch, Tensor | int | None], dict[str, Tensor]] | None = None
        self.probe: Probe | None = None
        self._head_caches: dict[tuple[Any, ...], PrefixCache | None] = {}

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
        placed = getattr(self.lm.model, "hf_device_map", None)
        encoder = getattr(self.encoder.model, "hf_device_map", None)
        if placed is None and encoder is None:
            raise AttributeError("hf_device_map")
        lm_device = str(self.lm.device)
        parts = {"encoder": encoder or {"": str(self.encoder.device)}, "lm": placed or {"": lm_device}}
        found = {f"{role}.{name}".rstrip("."): device for role in parts for name, device in parts[role].items()}
        return {"fusion": lm_device, **found}

    def _apply(self, fn: Any, recurse: bool = True) -> FusedLM:
        """Moves and casts what can be; the fusion stays with the LM, wherever that is."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.fusion.to(self.lm.device)
        self._head_caches.clear()
        return self

    def hidden_states(self, encoder_ids: Tensor, encoder_mask: Tensor) -> list[Tensor]:
        """States (B,T,D) of the layers that the mixer reads, from the cache where there is one."""
        if self.features is not None:
            states = self.features(encoder_ids, encoder_mask)
        else:
            states = self.encoder(encoder_ids, encoder_mask, self.fusion.mixer.layers)
        return [x.to(self.device) for x in states]

    @contextmanager
    def reading_states(self, cache: FeatureCache | None) -> Iterator[None]:
        """Hidden states come from this cache inside, or from the encoder alone."""
        before, self.features = self.features, cache
        try:
            yield
        finally:
            self.features = before

    def span(self, batch: Batch) -> Span:
        """Encoder, mixer and projector: the span embeddings (B,S+1,H), their mask and the layer weights."""
        if not self.fusion.reads_encoder:
            alone: Span = self.fusion(batch.encoder_mask.to(self.device))
            return alone
        if self.features is None and not torch.is_grad_enabled():
            weights = self.fusion.mixer.shared_weights()
            if weights is not None:
                return self._span_of_sum(batch, weights)
        hidden_states = self.hidden_states(batch.encoder_ids, batch.encoder_mask)
        span: Span = self.fusion(hidden_states, batch.encoder_mask.to(self.device))
        return span

    def _span_of_sum(self, batch: Batch, weights: Tensor) -> Span:
        """The same for weights that no token changes: layers are added up while the encoder runs."""
        mask = batch.encoder_mask.to(self.device)
        states = self.encoder.sum_layers(batch.encoder_ids, batch.encoder_mask, weights, self.fusion.ready)
        span: Span = self.fusion.project(MixerOutput(states * mask.unsqueeze(-1), weights), mask)
        return span

    def assemble(self, batch: Batch, prompt: Prompt | None = None) -> Sequences:
        """Packs span | plain text | tail | answer of every row, without gaps, padding at the right."""
        prompt = prompt or self.prompt
        span = self.span(batch)
        tail = torch.tensor(prompt.tail_ids, dtype=torch.long, device=self.device).expand(len(span.mask), -1)
        constant = torch.cat([batch.text_ids.to(self.device), tail], dim=1)
        answer = batch.answer_ids.to(self.device)
        ids = torch.cat([constant, answer], dim=1)
        return pad_right(
            torch.cat([span.embeddings.to(self.lm.dtype), self.lm.embed(ids.clamp_min(0))], dim=1),
            torch.cat([span.mask, ids != IGNORED], dim=1),
            F.pad(answer, (span.mask.shape[1] + constant.shape[1], 0), value=IGNORED),
        )

    def run_lm(self, sequences: Sequences, keep: Tensor, prompt: Prompt | None = None) -> tuple[Tensor, Any]:
        """Runs the LM over head and sequences.

        The head's keys and values are computed once per prompt and reused, where the LM allows it.

        Args:
            sequences: What follows the head.
            keep: (B,M), true where logits are read.
            prompt: The prompt, the model's own by default.

        Returns:
            Logits (N,V) at the kept positions, and the filled cache or None.
        """
        prompt = prompt or self.prompt
        recompute = self.gradient_checkpointing and torch.is_grad_enabled()
        learning = self.lm.learning and torch.is_grad_enabled()  # the head's keys and values get a gradient
        head = None if recompute or learning else self.head_cache(prompt)
        if head is not None:
            cache = head.expand(len(keep))
            return self.lm.run(sequences.embeddings, keep, cache=cache, start=head.length), cache
        whole = self.with_head(sequences, prompt)
        keep = F.pad(keep, (len(prompt.head_ids), 0))
        return self.lm.run(whole.embeddings, keep, recompute=recompute), None

    def with_head(self, sequences: Sequences, prompt: Prompt) -> Sequences:
        """The sequences with the prompt head in front of every row."""
        num_head = len(prompt.head_ids)
        ids = torch.tensor(prompt.head_ids, dtype=torch.long, device=self.device)
        head = self.lm.embed(ids).to(sequences.embeddings.dtype).expand(len(sequences.mask), -1, -1)
        return Sequences(
            torch.cat([head, sequences.embeddings], dim=1),
            F.pad(sequences.mask, (num_head, 0), value=True),
            F.pad(sequences.targets, (num_head, 0), value=IGNORED),
        )

    def head_cache(self, prompt: Prompt) -> PrefixCache | None:
        """Keys and values of the prompt head (none, if it is empty); None where reuse is off or does not work."""
        if not self.cache_head:
            return None
        key = (prompt.head_ids, self.lm.device, self.lm.working_dtype)
        if key not in self._head_caches:
            self._head_caches[key] = self.lm.cache_prefix(list(prompt.head_ids))
        return self._head_caches[key]

    def forward(
        self,
        encoder_ids: Tensor,
        encoder_mask: Tensor,
        text_ids: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
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

        Returns:
            `loss` (scalar) and `logits` (N,V) at the answer positions.
        """
        batch = Batch(encoder_ids, encoder_mask.bool(), text_ids, labels[:, 1:])
        if self.objective is not None:
            return self.objective(self, batch, num_items_in_batch)
        sequences = self.assemble(batch)
        following = sequences.next_targets()
        keep = following != IGNORED
        logits, _ = self.run_lm(sequences, keep)
        total = F.cross_entropy(logits, following[keep], reduction="sum")
        count = num_items_in_batch if num_items_in_batch is not None else keep.sum()
        return {"loss": total / count, "logits": logits}

    def train(self, mode: bool = True) -> FusedLM:
        """Sets the fusion's mode; encoder and LM stay in evaluation mode, but for the dropout of an adapter."""
        super().train(mode)
        self.encoder.eval()
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
        """Checks and tokenises inputs of one language."""
        rows = [self.reader.fields(text) for text in texts]
        columns = self.probe is not None
        return prepare(self.reader, prompt or self.prompt, rows, language=language, columns=columns)

    def classify(
        self, texts: Sequence[Text], *, language: str | None = None, batch_size: int = 32
    ) -> list[scoring.Classification]:
        """The most probable label of each text, with the probabilities of all.

        Args:
            texts: Strings, or mappings of columns for a task with several.
            language: Code of the texts' language; only NLLB-like encoders need it.
            batch_size: Texts per forward pass; it does not change the answers.

        Raises:
            PromptError: An input is empty or lacks a column, or the model has no labels.
        """
        return scoring.classify(self, self.prepare(texts, language), batch_size)

    def generate(
        self,
        texts: Sequence[Text],
        *,
        instruction: str | None = None,
        language: str | None = None,
        max_new_tokens: int = 64,
        batch_size: int = 16,
        **options: Any,
    ) -> list[str]:
        """Generates an answer to each text through the LM's own `generate`.

        Args:
            texts: Strings, or mappings of columns.
            instruction: English text before the span; None keeps the prompt that was trained.
            language: Code of the texts' language; only NLLB-like encoders need it.
            max_new_tokens: Most tokens per answer.
            batch_size: Texts per call.
            **options: Passed on: `do_sample`, `temperature`, `top_p`, `num_beams`, ...
        """
        prompt = self.prompt_for(instruction)
        prepared = self.prepare(texts, language, prompt)
        return generation.generate(self, prepared, prompt, max_new_tokens, batch_size, options)

    def stream(
        self,
        text: Text,
        *,
        instruction: str | None = None,
        language: str | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Iterator[str]:
        """Generates an answer to one text, piece by piece; arguments as in `generate`."""
        prompt = self.prompt_for(instruction)
        prepared = self.prepare([text], language, prompt)
        return generation.stream(self, prepared, prompt, max_new_tokens, options)

    def classify_prepared(
        self, examples: Sequence[PreparedExample], batch_size: int = 32
    ) -> list[scoring.Classification]:
        """The same for inputs that `prepare` made."""
        return scoring.classify(self, examples, batch_size)

    def prompt_for(self, instruction: str | None) -> Prompt:
        """The trained prompt, or the same style around another instruction."""
        if instruction is None:
            return self.prompt
        style = self.settings.get("prompt", {}).get("style", "chat")
        return build_prompt(
            self.lm.tokenizer,
            style=style,
            instruction=instruction,
            labels=self.labels,
            tail=self.settings.get("prompt", {}).get("tail", ""),
            include_text=self.prompt.text_separator is not None,
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Saves the trained weights and the config; see `glotfuse.checkpoint`."""
        from glotfuse.checkpoint import save

        save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, name: Path | str, **options: Any) -> FusedLM:
        """Loads a checkpoint by folder or hub id; see `glotfuse.checkpoint.load` for the options."""
        from glotfuse.checkpoint import load

        return load(name, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads a checkpoint with its card; see `glotfuse.hub.push_model`."""
        from glotfuse.hub import push_model

        return push_model(self, repo_id, **options)
