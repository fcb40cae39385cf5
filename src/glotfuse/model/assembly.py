"""Puts a model together from loaded backbones and settings: the only place where configs become plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from glotfuse.backbones import LM, Encoder
from glotfuse.fusion import BoundaryOnly, Fusion
from glotfuse.inputs.prompts import Prompt, build_prompt
from glotfuse.inputs.reader import InputReader
from glotfuse.model.fused_model import FusedModel
from glotfuse.recipes.config import FusionConfig, PromptConfig

ModelT = TypeVar("ModelT", bound=FusedModel)


def build_model(
    model_class: type[ModelT],
    encoder: Encoder,
    lm: LM,
    *,
    fusion: FusionConfig,
    prompt: PromptConfig,
    max_length: int,
    template: str,
    cut_column: str,
    instruction: str | None,
    labels: list[str],
    task: str = "",
    scale: float | None = None,
) -> ModelT:
    """Puts a model together from loaded backbones and settings; the fusion's weights are fresh.

    Args:
        model_class: `FusedModel`, or the class of it that users call.
        encoder: The frozen encoder.
        lm: The frozen LM.
        fusion: Settings of mixer, projector and boundary.
        prompt: Settings of the prompt; its instruction goes before the task's.
        max_length: Most encoder tokens.
        template: What the encoder reads.
        cut_column: The column that may be shortened.
        instruction: The task's instruction, used by the chat style.
        labels: Label words.
        task: The task's name, for the record.
        scale: Root mean square that span vectors are brought to; None measures the LM's where asked for.
    """
    if scale is None and fusion.match_scale:
        scale = lm.embedding_rms
    module = build_fusion(fusion, prompt, encoder.num_layers, encoder.hidden_size, lm.embedding_size, scale)
    built = prompt_of(prompt, lm.tokenizer, instruction, labels)
    reader = InputReader(
        encoder,
        template=template,
        cut_column=cut_column,
        max_length=max_length,
        max_text_tokens=prompt.max_text_tokens,
    )
    settings = {
        "fusion": vars(fusion),
        "prompt": vars(prompt),
        "scale": scale,
        "max_length": max_length,
        "template": template,
        "cut_column": cut_column,
        "instruction": instruction,
        "labels": labels,
        "task": task,
    }
    return model_class(encoder, module, lm, built, reader, labels, settings)


def reader_up_to(model: FusedModel, max_length: int | None) -> InputReader:
    """A model's reader with another limit; its own, where none is given.

    Raises:
        PromptError: The limit is more than the encoder takes.
    """
    own = model.reader
    if max_length is None or max_length == own.max_length:
        return own
    return InputReader(
        model.encoder,
        template=own.template,
        cut_column=own.cut_column,
        max_length=max_length,
        max_text_tokens=own.max_text_tokens,
    )


def read_with(model: FusedModel, reader: InputReader) -> None:
    """Has a model read with another reader from now on, and its checkpoints too."""
    model.reader = reader
    model.settings["max_length"] = reader.max_length


def build_fusion(
    fusion: FusionConfig,
    prompt: PromptConfig,
    num_layers: int,
    encoder_size: int,
    lm_size: int,
    scale: float | None,
) -> Fusion | BoundaryOnly:
    """What is trained, with fresh weights; see `build_model`."""
    if not prompt.include_span:
        return BoundaryOnly(lm_size, trained=fusion.boundary != "none")
    return Fusion(
        num_layers,
        encoder_size,
        lm_size,
        mixer=fusion.mixer,
        mixer_options=fusion.mixer_options,
        projector=fusion.projector,
        projector_options=fusion.projector_options,
        layer_norm=fusion.layer_norm,
        centre=fusion.centre,
        match_scale=scale if fusion.match_scale else None,
        summary=fusion.summary,
        state_dropout=fusion.state_dropout,
        token_dropout=fusion.token_dropout,
        state_noise=fusion.state_noise,
        layers=fusion.layers,
        boundary=fusion.boundary,
    )


def prompt_of(prompt: PromptConfig, tokenizer: Any, instruction: str | None, labels: Sequence[str]) -> Prompt:
    """The prompt of a recipe around a task's instruction; see `build_model`."""
    own = prompt.instruction if prompt.instruction is not None else instruction
    used = own if prompt.style == "chat" or prompt.instruction is not None else None
    return build_prompt(
        tokenizer,
        style=prompt.style,
        instruction=used or None,
        labels=labels,
        tail=prompt.tail,
        include_text=prompt.include_text or not prompt.include_span,
    )


def text_reader(model_class: type[ModelT], model: FusedModel, instruction: str, labels: Sequence[str] = ()) -> ModelT:
    """A model with the same LM that reads the plain text itself: what the LM can do without the encoder."""
    return build_model(
        model_class,
        model.encoder,
        model.lm,
        fusion=FusionConfig(boundary="none"),
        prompt=PromptConfig(include_span=False, max_text_tokens=1024),
        max_length=model.reader.max_length,
        template="{text}",
        cut_column="text",
        instruction=instruction,
        labels=list(labels),
    ).eval()
