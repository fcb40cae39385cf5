"""What an inspection reports: weights, similarities, tokens and counts against plain computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from glotfuse.errors import ConfigError, DataError
from glotfuse.fusion import BoundaryOnly
from glotfuse.inspection.inspector import inspect_model
from glotfuse.inspection.readings import read_rows
from glotfuse.inspection.rows import choose_rows
from glotfuse.inspection.similarity import debiased_cka, linear_cka, principal_components, retrieval_accuracy
from glotfuse.inspection.tokens import SPACE, written_tokens
from glotfuse.inspection.weights import text_weights, weights_over_training
from glotfuse.model.layer_weights import layer_weight_metrics
from glotfuse.tasks import Task, task_from_files
from tiny import ENCODERS, tiny_encoder, tiny_model

ENGLISH = (
    ("The economy is growing.", "politics"),
    ("The team won the match.", "sports"),
    ("Scientists found a new planet.", "science"),
    ("A new hospital was opened.", "politics"),
    ("The game was won in the last minute.", "sports"),
)
SINHALA = (
    "ආර්ථිකය වර්ධනය වෙමින් පවතී.",
    "කණ්ඩායම තරගය ජයගත්තේය.",
    "වර්ධනය වෙමින් අවසන් තරගය.",
    "ආර්ථිකය පවතී.",
    "කණ්ඩායම අවසන් මිනිත්තුවේ තරගය ජයගත්තේය.",
)
LABELS = ("science", "politics", "sports")


def write(folder: Path, language: str, rows: list[tuple[str, str]], split: str = "test") -> None:
    (folder / language).mkdir(parents=True, exist_ok=True)
    text = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    (folder / language / f"{split}.tsv").write_text(text, "utf8")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """English and Sinhala in parallel, Tamil with other labels in the same rows."""
    write(tmp_path, "eng_Latn", list(ENGLISH))
    write(tmp_path, "sin_Sinh", [(text, label) for text, (_, label) in zip(SINHALA, ENGLISH, strict=True)])
    write(tmp_path, "tam_Taml", [("பொருளாதாரம் வளர்ந்து வருகிறது.", "science")] * 5)
    return task_from_files(tmp_path, label_column="label", labels=LABELS)


def test_retrieval_counts_rows_whose_nearest_is_their_own() -> None:
    vectors = torch.eye(4)
    assert retrieval_accuracy(3 * vectors, vectors) == 1.0
    assert retrieval_accuracy(vectors.roll(1, 0), vectors) == 0.0
    assert retrieval_accuracy(vectors[[1, 0, 2, 3]], vectors) == 0.5


def test_vectors_that_are_all_alike_retrieve_by_chance() -> None:
    assert retrieval_accuracy(torch.ones(5, 3), torch.ones(5, 3)) == pytest.approx(0.2)


def test_linear_cka_is_that_of_its_definition_over_features() -> None:
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 6, dtype=torch.float64)
    a, b = (x - x.mean(0)).numpy(), (y - y.mean(0)).numpy()
    expected = np.linalg.norm(b.T @ a) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(expected)


def test_debiased_cka_is_the_sum_over_all_quadruples() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 3), torch.randn(6, 5)

    def hsic(first: torch.Tensor, second: torch.Tensor) -> float:
        """Song et al. 2012, equation 4, over ordered quadruples of different rows."""
        k, other = (first @ first.T).double().numpy(), (second @ second.T).double().numpy()
        rows = range(6)
        terms = [
            k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q])
            for i in rows for j in rows for q in rows for r in rows if len({i, j, q, r}) == 4
        ]  # fmt: skip
        return float(np.mean(terms))

    expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
    assert debiased_cka(x, y) == pytest.approx(expected)


def test_debiased_cka_of_chance_is_near_zero_where_plain_cka_is_near_one() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 400), torch.randn(40, 400)
    assert linear_cka(x, y) > 0.8
    assert abs(debiased_cka(x, y)) < 0.1
    rotation = torch.linalg.qr(torch.randn(400, 400)).Q
    assert debiased_cka(x, 3 * x @ rotation + 1) == pytest.approx(1.0, abs=1e-4)


def test_principal_components_are_scikit_learns_up_to_their_sign() -> None:
    vectors = torch.randn(12, 5)
    points, explained = principal_components(vectors)
    reference = PCA(2)
    expected = reference.fit_transform(vectors.double().numpy())
    assert np.abs(points.numpy()) == pytest.approx(np.abs(expected), abs=1e-8)
    assert explained == pytest.approx(tuple(reference.explained_variance_ratio_))


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_tokens_together_are_the_text_in_its_own_script(family: str) -> None:
    encoder = tiny_encoder(family)
    language = "sin_Sinh" if encoder._languages else None
    text = SINHALA[0]
    ids = encoder.tokenize([text], language)[0]
    tokens = written_tokens(encoder, text, ids, language)
    assert len(tokens) == len(ids)
    names = {*encoder.tokenizer.all_special_tokens, "__si__", "sin_Sinh"}
    specials = names - {encoder.tokenizer.unk_token}
    shown = [token.removesuffix(f" {encoder.tokenizer.unk_token}") for token in tokens if token not in specials]
    parts = [token.strip("…") for token in shown if token != SPACE]
    # characters of several tokens appear with each; count them once, at their first
    written = "".join(part.split(" ")[0] for part in parts if " " not in part or part.split(" ")[1].startswith("1/"))
    assert written == text.replace(" ", "")


def test_tokens_of_a_cut_text_are_those_of_its_beginning() -> None:
    model = tiny_model()
    model.reader.max_length = 8
    found = text_weights(model, [SINHALA[0]])[0]
    assert found.truncated
    assert found.text == SINHALA[0]
    assert len(found.tokens) == len(found.weights) <= 8
    written = "".join(token for token in found.tokens if token not in ("<s>", "</s>", SPACE))
    assert written
    assert SINHALA[0].replace(" ", "").startswith(written)


@pytest.mark.parametrize("mixer", ["last", "mean", "global_softmax", "transformer_softmax"])
def test_token_weights_are_the_mixers(mixer: str) -> None:
    model = tiny_model(mixer=mixer)
    found = text_weights(model, [SINHALA[0]])[0]
    ids = torch.tensor(model.encoder.tokenize([SINHALA[0]]))
    with torch.no_grad():
        states = model.encoder(ids, torch.ones_like(ids))
        expected = model.fusion.mix(list(states), torch.ones_like(ids).bool()).layer_weights
    assert torch.tensor(found.weights) == pytest.approx(expected.float().expand(1, ids.shape[1], -1)[0], abs=1e-6)
    assert [sum(row) for row in found.weights] == pytest.approx([1.0] * len(found.tokens))


def test_readings_of_a_batch_are_plain_means_of_each_row_alone() -> None:
    model = tiny_model(summary=True)
    examples = model.prepare([text for text, _ in ENGLISH])
    found = read_rows(model, examples, batch_size=3)
    weights = []
    for row, example in enumerate(examples):
        ids = torch.tensor([example.encoder_ids])
        mask = torch.ones_like(ids).bool()
        with torch.no_grad():
            states = model.encoder(ids, mask)
            mixed = model.fusion.mix(list(states), mask)
            span = model.fusion.project(mixed, mask).embeddings
        assert found.layers[row] == pytest.approx(torch.stack([x[0].mean(0) for x in states]), abs=1e-5)
        assert found.mixed[row] == pytest.approx(mixed.mixed[0].mean(0), abs=1e-5)
        assert found.span[row] == pytest.approx(span[0, :-1].mean(0), abs=1e-4)  # the last is the boundary
        weights.append(mixed.layer_weights[0, 1:-1])  # without <s> and </s>
    tokens = torch.cat(weights).double()
    assert found.weights.num_tokens == len(tokens)
    assert found.weights.mean == pytest.approx(tokens.mean(0), abs=1e-6)
    assert found.weights.std == pytest.approx(tokens.std(0, correction=0), abs=1e-6)


def test_training_metrics_are_mean_weights_and_are_read_back_in_the_order_of_steps() -> None:
    model = tiny_model()
    examples = model.prepare([text for text, _ in ENGLISH])
    metrics = layer_weight_metrics(model, examples, batch_size=2)
    expected = read_rows(model, examples).weights.mean.tolist()
    assert list(metrics.values()) == pytest.approx(expected, abs=1e-6)
    log = [{"step": 4, **metrics}, {"step": 5, "loss": 1.0}, {"step": 2, **metrics}]
    stale = dict.fromkeys(metrics, 0.0)
    history = weights_over_training([{"step": 4, **stale}, *log])
    assert history is not None
    assert history.steps == (2, 4)
    assert history.weights[1] == pytest.approx(tuple(expected), abs=1e-6)
    assert weights_over_training([{"step": 5, "loss": 1.0}]) is None


def test_training_metrics_of_shared_weights_need_no_pass() -> None:
    metrics = layer_weight_metrics(tiny_model(mixer="last"), [])
    assert list(metrics.values())[-1] == 1.0
    assert sum(metrics.values()) == 1.0


def test_ten_layers_and_more_keep_their_order() -> None:
    entry = {"step": 1, **{f"layer_weight_{i}": i / 78 for i in range(1, 13)}}
    history = weights_over_training([entry])
    assert history is not None
    assert history.weights[0] == tuple(i / 78 for i in range(1, 13))


def test_rows_of_parallel_languages_are_the_same_sentences(task: Task) -> None:
    chosen = choose_rows(task, "test", max_examples=3)
    assert list(chosen.rows) == ["eng_Latn", "sin_Sinh", "tam_Taml"]
    assert chosen.parallel == ("sin_Sinh",)
    assert "tam_Taml" in chosen.notes[0]
    english = [row.fields["text"] for row in chosen.rows["eng_Latn"]]
    numbers = [[text for text, _ in ENGLISH].index(text) for text in english]
    assert len(set(numbers)) == 3
    assert [row.fields["text"] for row in chosen.rows["sin_Sinh"]] == [SINHALA[i] for i in numbers]


def test_an_unknown_language_is_refused_with_those_there_are(task: Task) -> None:
    with pytest.raises(DataError, match=r"eng_Latn, sin_Sinh, tam_Taml.*'sin_Sihn'.*Did you mean 'sin_Sinh'"):
        choose_rows(task, "test", ["sin_Sihn"])


def test_data_in_the_training_language_alone_compares_nothing_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "eng_Latn", list(ENGLISH))
    chosen = choose_rows(task_from_files(tmp_path, label_column="label", labels=LABELS), "test")
    found = inspect_model(tiny_model(), run="run", chosen=chosen, split="test")
    assert found.alignment is None
    assert "translations are not compared" in found.notes[0]


def test_an_inspection_holds_every_language(task: Task) -> None:
    model = tiny_model()
    found = inspect_model(model, run="run", chosen=choose_rows(task, "test"), split="test")
    assert [row.language for row in found.languages] == ["eng_Latn", "sin_Sinh", "tam_Taml"]
    assert [text.language for text in found.texts] == ["eng_Latn", "sin_Sinh"]
    assert found.layer_weights is not None
    total = sum(row.num_tokens for row in found.languages)
    pooled = sum(np.array(row.mean) * row.num_tokens for row in found.languages) / total
    squares = (
        sum((np.array(row.std) ** 2 + np.array(row.mean) ** 2) * row.num_tokens for row in found.languages) / total
    )
    assert found.layer_weights.weights == pytest.approx(tuple(pooled))
    assert found.layer_weights.spread == pytest.approx(tuple(np.sqrt(squares - pooled**2)), abs=1e-6)
    assert found.alignment is not None
    assert [row.language for row in found.alignment.languages] == ["sin_Sinh"]
    assert found.alignment.num_rows == 5
    assert len(found.alignment.languages[0].layers) == model.encoder.num_layers
    for projection in found.alignment.projections:
        assert projection.languages == ("eng_Latn",) * 5 + ("sin_Sinh",) * 5
        assert projection.labels == tuple(label for _, label in ENGLISH) * 2


def test_a_language_that_is_a_copy_of_the_pivot_is_aligned_at_every_stage(tmp_path: Path) -> None:
    for language in ("eng_Latn", "sco_Latn"):
        write(tmp_path, language, list(ENGLISH))
    chosen = choose_rows(task_from_files(tmp_path, label_column="label", labels=LABELS), "test")
    found = inspect_model(tiny_model(), run="run", chosen=chosen, split="test").alignment
    assert found is not None
    stages = [*found.languages[0].layers, found.languages[0].mixed, found.languages[0].span]
    assert [stage.retrieval for stage in stages] == [1.0] * len(stages)
    assert [stage.debiased_cka for stage in stages] == pytest.approx([1.0] * len(stages), abs=1e-4)


def test_tokenisation_counts_texts_without_special_tokens(task: Task) -> None:
    model = tiny_model()
    model.reader.max_length = 12
    found = inspect_model(model, run="run", chosen=choose_rows(task, "test"), split="test")
    by_language = {row.language: row for row in found.tokenisation}
    ids = {
        "eng_Latn": [model.encoder.tokenize([text])[0][1:-1] for text, _ in ENGLISH],
        "sin_Sinh": [model.encoder.tokenize([text])[0][1:-1] for text in SINHALA],
    }
    counts = {language: sum(map(len, rows)) for language, rows in ids.items()}
    sinhala = by_language["sin_Sinh"]
    assert sinhala.num_tokens == counts["sin_Sinh"]
    assert sinhala.tokens_per_character == pytest.approx(counts["sin_Sinh"] / len("".join(SINHALA)))
    assert sinhala.relative_to_pivot == pytest.approx(counts["sin_Sinh"] / counts["eng_Latn"])
    assert sinhala.truncation_rate == pytest.approx(np.mean([len(row) + 2 > 12 for row in ids["sin_Sinh"]]))
    assert sinhala.truncation_rate > 0
    assert by_language["eng_Latn"].relative_to_pivot == 1.0
    assert by_language["tam_Taml"].relative_to_pivot is None


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    write(tmp_path, "eng_Latn", [("ꯃꯃ the", "sports"), ("the the", "science")])
    model = tiny_model()
    unknown = model.encoder.tokenizer.unk_token_id
    ids = [model.encoder.tokenize([text])[0][1:-1] for text in ("ꯃꯃ the", "the the")]
    expected = sum(row.count(unknown) for row in ids) / sum(map(len, ids))
    assert expected > 0
    chosen = choose_rows(task_from_files(tmp_path, label_column="label", labels=LABELS), "test")
    found = inspect_model(model, run="run", chosen=chosen, split="test")
    assert found.tokenisation[0].unknown_rate == pytest.approx(expected)


def test_texts_alone_need_no_task() -> None:
    found = inspect_model(tiny_model(mixer="global_softmax"), run="run", texts=["The economy is growing."])
    assert [text.text for text in found.texts] == ["The economy is growing."]
    assert found.layer_weights is not None
    assert found.layer_weights.shared
    assert found.alignment is None


def test_a_model_that_reads_no_encoder_is_refused_and_logs_no_weights() -> None:
    model = tiny_model()
    model.fusion = BoundaryOnly(model.lm.embedding_size)
    assert layer_weight_metrics(model, model.prepare(["The economy is growing."])) == {}
    with pytest.raises(ConfigError, match="no layers to inspect"):
        inspect_model(model, run="run", texts=["The economy is growing."])
