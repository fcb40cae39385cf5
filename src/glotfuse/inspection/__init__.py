"""What the fusion does: layer weights, alignment of translations, tokenisation.

`results` holds plain data and needs no torch; everything else runs the model.
"""

from typing import TYPE_CHECKING

from glotfuse.lazy import lazy_exports

if TYPE_CHECKING:
    from glotfuse.inspection.inspector import inspect_model
    from glotfuse.inspection.results import Inspection
    from glotfuse.inspection.rows import ChosenRows, choose_rows
    from glotfuse.inspection.similarity import debiased_cka, linear_cka, retrieval_accuracy
    from glotfuse.inspection.weights import text_weights, weights_over_training
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "ChosenRows": "glotfuse.inspection.rows",
            "Inspection": "glotfuse.inspection.results",
            "choose_rows": "glotfuse.inspection.rows",
            "debiased_cka": "glotfuse.inspection.similarity",
            "inspect_model": "glotfuse.inspection.inspector",
            "linear_cka": "glotfuse.inspection.similarity",
            "retrieval_accuracy": "glotfuse.inspection.similarity",
            "text_weights": "glotfuse.inspection.weights",
            "weights_over_training": "glotfuse.inspection.weights",
        },
    )

__all__ = [
    "ChosenRows",
    "Inspection",
    "choose_rows",
    "debiased_cka",
    "inspect_model",
    "linear_cka",
    "retrieval_accuracy",
    "text_weights",
    "weights_over_training",
]
