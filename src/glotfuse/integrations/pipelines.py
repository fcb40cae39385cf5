"""`transformers.pipeline` over a fused model.

    from transformers import pipeline
    from glotfuse.integrations.pipelines import FusedTextClassification

    classify = pipeline("text-classification", model=model, pipeline_class=FusedTextClassification)

The model is loaded by `FusedLM.from_pretrained`: a name alone would send transformers looking for a config of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from transformers import Pipeline

from glotfuse.api import FusedLM


class _FusedPipeline(Pipeline):  # type: ignore[misc]
    """Batches of texts go to the model whole, which sorts and pads them itself."""

    _load_tokenizer = _load_processor = _load_image_processor = False
    _load_video_processor = _load_feature_extractor = False

    def __init__(self, model: FusedLM, *args: Any, device: Any = None, **options: Any):
        super().__init__(model, *args, device=model.device if device is None else device, **options)

    def preprocess(self, inputs: Any, **options: Any) -> dict[str, Any]:
        """One text, or one mapping of columns, as a batch."""
        return {"texts": [inputs], **options}

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[Any]:
        """Answers one by one, computed in batches."""
        rest = iter(inputs)
        while batch := list(islice(rest, batch_size)):
            outputs = self.forward({"texts": batch, **preprocess_params}, **forward_params)
            for answer in outputs["answers"]:
                yield self.postprocess({"answers": [answer]}, **postprocess_params)


class FusedTextClassification(_FusedPipeline):
    """Labels texts: `{"label": ..., "score": ...}` each, or a list of the `top_k` best."""

    def _sanitize_parameters(
        self, top_k: int | None = 1, language: str | None = None, **_: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, {"language": language}, {"top_k": top_k}

    def _forward(self, inputs: dict[str, Any], language: str | None = None) -> dict[str, Any]:
        return {"answers": self.model.classify(inputs["texts"], language=language)}

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = 1) -> Any:
        """The best labels of one text; `top_k=None` gives all."""
        probabilities = outputs["answers"][0].probabilities
        ordered = sorted(probabilities, key=lambda label: -probabilities[label])
        found = [{"label": label, "score": probabilities[label]} for label in ordered[:top_k]]
        return found[0] if top_k == 1 else found


class FusedTextGeneration(_FusedPipeline):
    """Generates an English answer to each text: `[{"generated_text": ...}]`."""

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        return {}, options, {}

    def _forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        return {"answers": self.model.generate(inputs["texts"], **options)}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, str]]:
        """The answer to one text, in the shape of transformers' own pipeline."""
        return [{"generated_text": outputs["answers"][0]}]
