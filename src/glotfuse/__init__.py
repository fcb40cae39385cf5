"""Give an English LLM the languages of a multilingual encoder, training on English only."""

from typing import TYPE_CHECKING

from glotfuse.lazy import lazy_exports

if TYPE_CHECKING:
    from glotfuse.api import FusedLM
    from glotfuse.errors import GlotfuseError
    from glotfuse.fusion import register_mixer, register_projector
    from glotfuse.recipes.config import Recipe
    from glotfuse.recipes.loading import load_recipe
    from glotfuse.tasks import get_task, task_from_files
else:  # hidden from type checkers, which would take any name for granted
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "FusedLM": "glotfuse.api",
            "GlotfuseError": "glotfuse.errors",
            "Recipe": "glotfuse.recipes.config",
            "get_task": "glotfuse.tasks",
            "load_recipe": "glotfuse.recipes.loading",
            "register_mixer": "glotfuse.fusion",
            "register_projector": "glotfuse.fusion",
            "task_from_files": "glotfuse.tasks",
        },
    )

__version__ = "0.1.0"

__all__ = [
    "FusedLM",
    "GlotfuseError",
    "Recipe",
    "__version__",
    "get_task",
    "load_recipe",
    "register_mixer",
    "register_projector",
    "task_from_files",
]
