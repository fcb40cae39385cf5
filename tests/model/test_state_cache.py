"""The cache of encoder states: the same states, computed once, whatever else happens to the store."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from glotfuse.backbones import Encoder
from glotfuse.inputs.batch import collate
from glotfuse.inputs.padding import pad_and_mask
from glotfuse.model.state_cache import StateCache, StateCacheError, _used
from tiny import TEXTS, tiny_encoder, tiny_model

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return tiny_encoder("xlm-r")


def batch_of(encoder: Encoder, texts: list[str] = TEXTS) -> tuple[Tensor, Tensor]:
    return pad_and_mask(encoder.tokenize(texts), encoder.pad_token_id)


def distinct(count: int, first: int = 0) -> list[str]:
    """Texts with different tokens; the tiny tokenizers know no digits."""
    letters = "aeiousctrn"
    return [f"{TEXTS[0]} {' '.join(letters[int(digit)] for digit in str(i))}" for i in range(first, first + count)]


def open_cache(encoder: Encoder, folder: Path, max_bytes: int = 64 * MEGABYTE) -> StateCache:
    return StateCache(encoder, range(encoder.num_layers), folder, max_bytes)


def forbid(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the encoder should not run")

    monkeypatch.setattr(encoder, "forward", refuse)


def test_states_are_the_encoders_to_half_precision(encoder: Encoder, tmp_path: Path) -> None:
    ids, mask = batch_of(encoder)
    with open_cache(encoder, tmp_path) as cache:
        for _ in range(2):
            for found, expected in zip(cache(ids, mask), encoder(ids, mask), strict=True):
                torch.testing.assert_close(found[mask], expected[mask], rtol=2**-11, atol=1e-6)
                assert not found[~mask].any()
        assert (cache.misses, cache.hits) == (len(TEXTS), len(TEXTS))


def test_a_second_process_computes_nothing(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = batch_of(encoder)
    with open_cache(encoder, tmp_path) as cache:
        first = cache(ids, mask)
    forbid(encoder, monkeypatch)
    with open_cache(encoder, tmp_path) as cache:
        second = cache(ids, mask)
        assert (cache.misses, cache.hits) == (0, len(TEXTS))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b), "states that were just computed should be rounded as stored ones are"


def test_a_text_is_found_in_another_batch(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = batch_of(encoder)
    with open_cache(encoder, tmp_path) as cache:
        whole = cache(ids, mask)
        forbid(encoder, monkeypatch)
        length = int(mask[1].sum())
        alone = cache(ids[1:2, :length], mask[1:2, :length])
    for a, b in zip(whole, alone, strict=True):
        assert torch.equal(a[1, :length], b[0])


def test_only_the_layers_asked_for_are_kept(encoder: Encoder, tmp_path: Path) -> None:
    ids, mask = batch_of(encoder)
    with StateCache(encoder, (1,), tmp_path, MEGABYTE) as cache:
        (found,) = cache(ids, mask)
    torch.testing.assert_close(found[mask], encoder(ids, mask)[1][mask], rtol=2**-11, atol=1e-6)


def test_every_encoder_and_choice_of_layers_has_its_own_store(encoder: Encoder, tmp_path: Path) -> None:
    paths = set()
    for made, layers in ((encoder, (0, 1)), (encoder, (1,)), (tiny_encoder("bert"), (0, 1))):
        with StateCache(made, layers, tmp_path, MEGABYTE) as cache:
            paths.add(cache.path)
    assert len(paths) == 3


def test_states_beyond_float16_are_kept_as_bfloat16(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, mask = batch_of(encoder)
    large = [x * 1e6 for x in encoder(ids, mask)]
    monkeypatch.setattr(encoder, "forward", lambda *_: large)
    with open_cache(encoder, tmp_path) as cache:
        for _ in range(2):
            for found, expected in zip(cache(ids, mask), large, strict=True):
                torch.testing.assert_close(found[mask], expected[mask], rtol=2**-8, atol=1.0)


def test_a_full_store_is_said_and_changes_no_state(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = distinct(900)
    with open_cache(encoder, tmp_path, max_bytes=1) as cache:
        for start in range(0, len(texts), 30):
            ids, mask = batch_of(encoder, texts[start : start + 30])
            for found, expected in zip(cache(ids, mask), encoder(ids, mask), strict=True):
                torch.testing.assert_close(found[mask], expected[mask], rtol=2**-11, atol=1e-6)
        path = cache.path
    assert caplog.text.count("No more encoder states are kept") == 1
    assert (path / "data.mdb").stat().st_size <= 1.1 * MEGABYTE


def _fill(folder: Path, first: int, started: Callable[[], None] | None = None) -> None:
    encoder = tiny_encoder("xlm-r")
    with open_cache(encoder, folder) as cache:
        for text in distinct(40, first):
            cache(*batch_of(encoder, [text]))
            if started:
                started()


def test_processes_share_a_store(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path, first)) for first in (0, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    expected = [encoder(*batch_of(encoder, [text])) for text in distinct(60)]
    forbid(encoder, monkeypatch)
    with open_cache(encoder, tmp_path) as cache:
        for text, states in zip(distinct(60), expected, strict=True):
            found = cache(*batch_of(encoder, [text]))
            torch.testing.assert_close(found[-1], states[-1], rtol=2**-11, atol=1e-5)


def test_a_killed_process_leaves_a_whole_store(encoder: Encoder, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    worker = context.Process(target=_fill, args=(tmp_path, 0, started.set))
    worker.start()
    assert started.wait(60)
    time.sleep(0.02)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join(60)
    with open_cache(encoder, tmp_path) as cache:
        for text in distinct(40):
            ids, mask = batch_of(encoder, [text])
            torch.testing.assert_close(cache(ids, mask)[-1], encoder(ids, mask)[-1], rtol=2**-11, atol=1e-5)
        assert cache.hits > 0


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize(
    "damage", [half, lambda file: file.write_bytes(b"x" * 9000), lambda file: os.truncate(file, 5)]
)
def test_a_damaged_store_is_emptied_and_used_again(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object]
) -> None:
    texts = distinct(40)
    with open_cache(encoder, tmp_path) as cache:
        cache(*batch_of(encoder, texts))
    damage(cache.path / "data.mdb")
    expected = encoder(*batch_of(encoder, texts))
    for misses in (40, 0):
        with open_cache(encoder, tmp_path) as cache:  # reading half a store would kill the process, by SIGBUS
            ids, mask = batch_of(encoder, texts)
            torch.testing.assert_close(cache(ids, mask)[-1][mask], expected[-1][mask], rtol=2**-11, atol=1e-6)
            assert cache.misses == misses
    assert caplog.text.count("was damaged") == 1


def test_what_a_process_set_aside_before_it_died_is_cleared_away(encoder: Encoder, tmp_path: Path) -> None:
    with open_cache(encoder, tmp_path) as cache:
        old = cache.path.with_name(f"{cache.path.name}.old")
    old.mkdir()
    with open_cache(encoder, tmp_path):
        assert not old.exists()


def test_the_effect_on_loss_and_gradients_is_small(tmp_path: Path) -> None:
    model = tiny_model(mixer="transformer_softmax", mixer_options={"feedforward_size": 16}, labels=("sports", "health"))
    model.fusion.eval()
    batch = collate(model.prepare(TEXTS), model.encoder.pad_token_id)
    labels = torch.tensor([[-100, *model.label_ids[0][:1]]] * len(TEXTS))

    def run() -> tuple[Tensor, Tensor]:
        model.zero_grad()
        loss = model(batch.encoder_ids, batch.encoder_mask, batch.text_ids, labels)["loss"]
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten().clone() for p in model.fusion.parameters()])

    loss, gradient = run()
    cache = StateCache(model.encoder, model.fusion.mixer.layers, tmp_path, 64 * MEGABYTE)
    with cache, model.reading_states(cache):
        cached_loss, cached_gradient = run()
    assert abs(cached_loss - loss) <= 1e-3 * abs(loss)
    assert (cached_gradient - gradient).norm() <= 5e-3 * gradient.norm()
    assert not torch.equal(cached_gradient, gradient), "the cache should have been used"


def test_texts_that_are_stored_need_no_more_room(encoder: Encoder, tmp_path: Path) -> None:
    rows = encoder.tokenize(distinct(40))
    with open_cache(encoder, tmp_path, 4 * MEGABYTE) as cache:
        for text in distinct(40):
            cache(*batch_of(encoder, [text]))
        cache._max_bytes = _used(cache._store) + 1000
        cache.make_room(rows)
        cache(*batch_of(encoder, distinct(1)))
        assert cache.hits == 1, "the store should not have been emptied"


def test_a_store_full_of_other_texts_is_emptied(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_cache(encoder, tmp_path, 4 * MEGABYTE) as cache:
        for text in distinct(40):
            cache(*batch_of(encoder, [text]))
        cache._max_bytes = _used(cache._store) + 1000
        cache.make_room(encoder.tokenize(distinct(20, first=100)))
        assert "was full of other texts" in caplog.text
        cache(*batch_of(encoder, distinct(1)))
        assert cache.hits == 0


def test_more_than_the_budget_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with (
        open_cache(encoder, tmp_path, 1) as cache,
        pytest.raises(StateCacheError, match=r"GB of at most .*encoder\.cache_gb"),
    ):
        cache.make_room([list(range(512))] * 100)


def test_more_than_half_of_the_free_disk_is_refused(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with open_cache(encoder, tmp_path) as cache, pytest.raises(StateCacheError, match="of the disk are free"):
        cache.make_room(encoder.tokenize(TEXTS))


def test_a_folder_that_cannot_be_used_is_said(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateCacheError, match="cannot be opened"):
        open_cache(encoder, tmp_path / "file")
    with open_cache(encoder, tmp_path), pytest.raises(StateCacheError, match="cannot be opened"):
        open_cache(encoder, tmp_path)  # LMDB wants one handle per process


def test_a_store_that_fails_only_costs_time(encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids, mask = batch_of(encoder)
    with open_cache(encoder, tmp_path) as cache:
        cache.close()  # as a failing disk does, LMDB now refuses reads and writes
        found = cache(ids, mask)
    torch.testing.assert_close(found[-1][mask], encoder(ids, mask)[-1][mask], rtol=2**-11, atol=1e-6)
    assert "computed each time" in caplog.text


def test_padding_at_the_left_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    with open_cache(encoder, tmp_path) as cache, pytest.raises(ValueError, match="padded at the right"):
        cache(torch.tensor([[1, 5, 6]]), torch.tensor([[False, True, True]]))


def test_autocast_does_not_change_states(encoder: Encoder, tmp_path: Path) -> None:
    ids, mask = batch_of(encoder)
    with open_cache(encoder, tmp_path) as cache, torch.autocast("cpu", dtype=torch.bfloat16):
        found = cache(ids, mask)
    torch.testing.assert_close(found[-1][mask], encoder(ids, mask)[-1][mask], rtol=2**-11, atol=1e-6)


def test_large_float16_states_come_back_as_they_were(encoder: Encoder, tmp_path: Path) -> None:
    """bfloat16 would round them up to infinity, which T5-like residual sums come near to."""
    half = tiny_encoder("xlm-r", dtype="float16")
    original = half.forward

    def large(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(torch.full_like(states, 65_440.0) for states in original(*arguments))

    half.forward = large  # type: ignore[method-assign]
    ids, mask = batch_of(half)
    with open_cache(half, tmp_path) as cache:
        for _ in range(2):
            assert all(bool((states[mask] == 65_440.0).all()) for states in cache(ids, mask))
