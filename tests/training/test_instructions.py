"""Rows with instructions of their own: read and answered as under a prompt of that instruction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from glotfuse.errors import ConfigError, DataError
from glotfuse.inputs.batch import split_rows, training_inputs
from glotfuse.inputs.prompts import build_prompt
from glotfuse.recipes.config import TaskConfig
from glotfuse.runs.data import as_text, load_rows, task_of
from glotfuse.training.objectives import OBJECTIVES
from small_runs import small_recipe
from tiny import tiny_model

TEXTS = ["The team won.", "The economy is growing fast.", "It rained.", "A new school opened in the city."]
ASKED = [("Repeat.", "The team won."), ("Topic?", "economy"), ("Repeat.", "It rained."), ("Who or what?", "a school")]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


def prompt_for(model: Any, instruction: str) -> Any:
    return build_prompt(model.lm.tokenizer, style="chat", instruction=instruction)


def prepared(model: Any, **options: Any) -> Any:
    settings = {"asked": ASKED, "prompt_for": lambda instruction: prompt_for(model, instruction)}
    prompt = prompt_for(model, "Repeat.")
    return OBJECTIVES["instructions"].prepare(
        model.reader, prompt, TEXTS, **{**settings, "max_answer_tokens": 60, **options}
    )


def test_the_loss_is_that_of_each_row_under_its_own_prompt(model: Any) -> None:
    examples = prepared(model).examples
    assert [bool(example.head_ids) for example in examples] == [False, True, False, True]
    shared = prompt_for(model, "Repeat.")
    own, model.prompt = model.prompt, shared
    inputs = training_inputs(examples, model.encoder.pad_token_id)
    together = model(**inputs)["loss"]
    total = count = 0.0
    for example, (instruction, _) in zip(examples, ASKED, strict=True):
        model.prompt = prompt_for(model, instruction)
        alone = training_inputs([example], model.encoder.pad_token_id)
        alone.pop("head_ids", None)
        number = len(example.answer_ids)
        total, count = total + float(model(**alone)["loss"].detach()) * number, count + number
    model.prompt = own
    assert float(together.detach()) == pytest.approx(total / count, rel=1e-4)


def test_parts_of_a_batch_keep_their_heads(model: Any) -> None:
    shared, own = prompt_for(model, "Repeat."), model.prompt
    model.prompt = shared
    inputs = training_inputs(prepared(model).examples, model.encoder.pad_token_id)
    number = int((inputs["labels"] != -100).sum())
    whole = model(**inputs, num_items_in_batch=number)["loss"]
    parts = split_rows(inputs, 12)
    assert len(parts) > 1
    summed = torch.stack([model(**part, num_items_in_batch=number)["loss"] for part in parts]).sum()
    model.prompt = own
    torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5)


def test_rows_that_cannot_be_read_or_answered_are_left_out(model: Any) -> None:
    found = prepared(model, max_answer_tokens=8)
    assert found.num_left_out > 0
    assert len(found.examples) + found.num_left_out == len(TEXTS)
    with pytest.raises(DataError, match="found none among 4"):
        prepared(model, max_answer_tokens=1)


def test_answers_are_tokenized_at_once_as_one_by_one(model: Any) -> None:
    answers = ["sports", " space", "", "The team won.", "é"]
    for style in ("chat", "plain"):
        prompt = build_prompt(model.lm.tokenizer, style=style, tail="\nLabel: " if style == "plain" else "")
        assert prompt.all_answer_ids(answers) == [prompt.answer_ids(answer) for answer in answers]
    assert prompt.all_answer_ids([]) == []


def test_a_file_needs_the_columns(tmp_path: Any) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(
        "text\tinstruction\tanswer\nThe team won.\tRepeat.\tThe team won.\nIt rained.\tTopic?\tweather\n", "utf8"
    )
    values = {
        "name": "files",
        "path": str(path),
        "label_column": None,
        "text_columns": ["text", "instruction", "answer"],
    }
    recipe = small_recipe(tmp_path, task=values, objective="instructions")
    task = task_of(recipe.task)
    rows = load_rows(task, recipe)
    _, found = as_text(task, rows, "instructions")
    assert found.train[1].fields == {"text": "It rained.", "instruction": "Topic?", "answer": "weather"}
    few = TaskConfig(name="files", path=str(path), label_column=None, text_columns=["text"])
    with pytest.raises(ConfigError, match="columns text, instruction, answer"):
        as_text(task_of(few), load_rows(task_of(few), recipe), "instructions")


def test_answers_and_heads_count_as_tokens_of_a_part(model: Any) -> None:
    inputs = training_inputs(prepared(model).examples, model.encoder.pad_token_id)
    rows = len(inputs["labels"])
    longest = max(
        int((inputs["encoder_mask"][i].sum()) + sum((inputs[k][i] != -100).sum() for k in ("labels", "head_ids")))
        for i in range(rows)
    )
    assert [len(part["labels"]) for part in split_rows(inputs, longest)] == [1] * rows
    assert len(split_rows(inputs, rows * longest)) == 1
