"""The two recipes of `glotfuse quickstart`: the recommended one (recipes/quickstart.yaml) and what it has to beat."""

from __future__ import annotations

from dataclasses import replace

from glotfuse.config import (
    AugmentationConfig,
    EncoderConfig,
    FusionConfig,
    GeneralConfig,
    ProbeConfig,
    PromptConfig,
    Recipe,
    TrainingConfig,
)

_GENERAL = GeneralConfig(
    objective="reconstruction",
    prompt=PromptConfig(instruction="Translate the text into English."),
    training=TrainingConfig(epochs=3, batch_size=8, max_answer_tokens=64, evaluations=2),
)


def quickstart_recipes(device: str, epochs: float) -> dict[str, tuple[str, Recipe]]:
    """Folder name to title and recipe.

    Args:
        device: As in a recipe.
        epochs: Passes of the task's training.
    """
    task = Recipe(training=TrainingConfig(epochs=epochs, evaluations=3), device=device)
    recommended = replace(
        task,
        encoder=EncoderConfig(prefix="query: "),
        fusion=FusionConfig(mixer="mean", layers=[-8, -7, -6, -5, -4, -3, -2, -1], centre=True),
        general=_GENERAL,
        augmentation=AugmentationConfig(code_switching=0.5),
        probe=ProbeConfig(kind="kernel"),
    )
    embedding = Recipe(method="embedding", encoder=recommended.encoder, device=device)
    return {"default": ("glotfuse", recommended), "embedding": ("embeddings + logistic regression", embedding)}
