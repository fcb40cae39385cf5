"""FusedLM: what users call. Text in any of the encoder's languages in, labels or English text out.

    >>> from glotfuse import FusedLM
    >>> model = FusedLM.from_pretrained("runs/quickstart/default")  # doctest: +SKIP
    >>> model.classify(["Мы выиграли матч."])[0].label  # doctest: +SKIP
    'sports'

`glotfuse.model.fused_model.FusedModel`, of which it is one, goes from token ids to logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.reader import Text
from glotfuse.model import calibration, checkpoint, classification, generation
from glotfuse.model.classification import Classification
from glotfuse.model.fused_model import FusedModel


class FusedLM(FusedModel):
    """A frozen encoder, a trained fusion and a frozen LM, from texts to answers; arguments as in `FusedModel`."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._priors: dict[tuple[tuple[str, ...], tuple[int, ...]], list[float]] = {}

    def classify(
        self,
        texts: Sequence[Text],
        *,
        labels: Sequence[str] | None = None,
        instruction: str | None = None,
        calibrate: bool = True,
        language: str | None = None,
        batch_size: int = 32,
    ) -> list[Classification]:
        """The most probable label of each text, with the probabilities of all.

        Args:
            texts: Strings, or mappings of columns for a task with several.
            labels: Label words in place of those that were trained, if any were.
            instruction: English text before the span, with `{labels}`; None takes the trained one.
            calibrate: Whether, of labels that were not trained, the LM's liking for some of their words is taken off;
                see `glotfuse.model.calibration`. It takes 64 more texts, once for such labels and instruction.
            language: Code of the texts' language; only NLLB-like encoders need it.
            batch_size: Texts per forward pass; it does not change the answers.

        Raises:
            PromptError: An input is empty or lacks a column, or the model has no labels.

        Example:
            >>> answer = model.classify(["Awọn dokita gba agbalagba niyanju lati sun."])[0]  # doctest: +SKIP
            >>> answer.label, answer.probabilities[answer.label]  # doctest: +SKIP
            ('health', 0.93)
        """
        model = self.with_labels(labels, instruction) if labels or instruction else self
        found = model.classify_prepared(model.prepare(texts, language), batch_size)
        if not calibrate or sorted(model.labels) == sorted(self.labels):
            return found
        key = (model.labels, model.prompt.head_ids)
        if key not in self._priors:
            self._priors[key] = calibration.label_prior(model, batch_size)
        return calibration.calibrated(found, model.labels, self._priors[key])

    def classify_prepared(self, examples: Sequence[PreparedExample], batch_size: int = 32) -> list[Classification]:
        """The most probable label of each input that `prepare` made, with the probabilities of all.

        Raises:
            PromptError: The model has no labels.
        """
        return classification.classify(self, examples, batch_size)

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

        Raises:
            PromptError: An input is empty or lacks a column, or several answers per text are asked for.

        Example:
            >>> model.generate(["..."], instruction="Summarise in English.", max_new_tokens=60)  # doctest: +SKIP
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
        """Generates an answer to one text, piece by piece; arguments as in `generate`.

        Example:
            >>> for piece in model.stream("...", instruction="Summarise in English."):  # doctest: +SKIP
            ...     print(piece, end="", flush=True)
        """
        prompt = self.prompt_for(instruction)
        prepared = self.prepare([text], language, prompt)
        return generation.stream(self, prepared, prompt, max_new_tokens, options)

    def save_pretrained(self, folder: Path | str) -> None:
        """Saves the trained weights and the config, a few megabytes; see `glotfuse.model.checkpoint.save`.

        Example:
            >>> model.save_pretrained("my-model")  # doctest: +SKIP
        """
        checkpoint.save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, name: Path | str, **options: Any) -> Self:
        """Loads a checkpoint by folder or hub id; see `glotfuse.model.checkpoint.load` for the options.

        Example:
            >>> model = FusedLM.from_pretrained("runs/sib200", device="cuda", dtype="bfloat16")  # doctest: +SKIP
        """
        return checkpoint.load(name, model_class=cls, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads a checkpoint with its card, and returns the repository's address; see `glotfuse.hub.push_model`.

        Example:
            >>> model.push_to_hub("me/sib200-e5-smollm2", private=True)  # doctest: +SKIP
        """
        from glotfuse.hub.push import push_model  # the hub's client takes a second to import

        return push_model(self, repo_id, **options)
