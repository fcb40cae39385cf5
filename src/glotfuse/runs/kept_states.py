"""The encoder's states of a run's examples, kept on the disk from one epoch to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from glotfuse import distributed
from glotfuse.files import cache_dir
from glotfuse.inputs.batch import PreparedExample
from glotfuse.model.fused_model import FusedModel
from glotfuse.model.state_cache import STORES, RoundedStates, StateCache, StateCacheError
from glotfuse.progress import console
from glotfuse.recipes.config import Recipe
from glotfuse.runs.run import Run

_CPU_CACHE_GB = 20.0


@contextmanager
def keeping_states(run: Run) -> Iterator[None]:
    """Keeps the encoder's states on the disk while a run's model is trained, where they fit the budget.

    Where they do not they are computed each time and rounded all the same, so that no weight depends on a disk.
    """
    model = run.model
    gigabytes = budget(run.recipe, model.encoder.device.type) if model.fusion.reads_encoder else 0.0
    with ExitStack() as stack:
        if gigabytes:
            try:
                examples = [*run.train, *run.dev.examples]
                cache = stack.enter_context(_room_for_states(model, examples, int(gigabytes * 1e9)))
                stack.enter_context(model.reading_states(cache))
            except StateCacheError as reason:
                stack.enter_context(model.reading_states(RoundedStates(model.encoder, model.mixing.mixer.layers)))
                console.print(f"Encoder states are computed anew every epoch: {reason}.", style="yellow")
        yield


def budget(recipe: Recipe, device: str) -> float:
    """Most gigabytes for the states of a run that reads its encoder on this kind of device; 0 keeps none."""
    if not recipe.training.epochs or recipe.wants_views:  # a view is read once
        return 0.0
    if recipe.encoder.cache_gb is None:
        return _CPU_CACHE_GB if device == "cpu" else 0.0
    return recipe.encoder.cache_gb


def _room_for_states(model: FusedModel, examples: Sequence[PreparedExample], max_bytes: int) -> StateCache:
    """A store with room for the examples' states, made by one process of each machine before the others open it."""

    def opened() -> StateCache:
        return StateCache(model.encoder, model.mixing.mixer.layers, cache_dir() / STORES, max_bytes)

    failure = None
    if distributed.is_local_main():
        try:
            with opened() as cache:
                cache.make_room([example.encoder_ids for example in examples])
        except StateCacheError as error:
            failure = str(error)
    for reason in filter(None, distributed.gather(failure)):
        raise StateCacheError(reason)
    return opened()
