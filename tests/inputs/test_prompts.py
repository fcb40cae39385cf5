"""The prompt in the styles of common LMs: one BOS, the span's place, the answer's tokens and its end.

The reference is the whole conversation as the LM's own template shows it, tokenized in one piece, with a special
token where the span belongs.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from glotfuse.errors import PromptError
from glotfuse.inputs.prompts import Prompt, build_prompt
from tiny_tokenizers import byte_level_bpe, unigram

SPAN = "<|span|>"

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = CHATML.replace(
    "{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
HARMONY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m['content'] }}<|return|>"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
HEADERS = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CHANNELS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]


def fast(base: Tokenizer, template: str | None = None, *, adds_bos: bool = False, **specials: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    if adds_bos:
        bos = specials["bos_token"]
        base.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, base.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, **specials)
    tokenizer.chat_template = template
    return tokenizer


@functools.cache
def lm_tokenizer(family: str) -> Any:
    match family:
        case "smollm2":  # the BOS is also the start of every turn
            base = byte_level_bpe(["<|im_start|>", "<|im_end|>", SPAN])
            return fast(base, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>")
        case "qwen" | "qwen3":  # no BOS
            base = byte_level_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>", SPAN])
            return fast(base, CHATML if family == "qwen" else QWEN3, eos_token="<|im_end|>")
        case "llama3":
            base = byte_level_bpe(["<|begin_of_text|>", "<|end_of_text|>", *HEADERS, SPAN])
            return fast(base, LLAMA3, adds_bos=True, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
        case "gemma":
            base = unigram(["<unk>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", SPAN])
            return fast(base, GEMMA, adds_bos=True, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
        case "mistral":  # turns marked by plain text
            base = unigram(["<unk>", "<s>", "</s>", SPAN])
            return fast(base, MISTRAL, adds_bos=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        case "mistral3":  # turns marked by special tokens
            base = unigram(["<unk>", "<s>", "</s>", "[INST]", "[/INST]", SPAN])
            return fast(base, MISTRAL, adds_bos=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        case "harmony":  # no BOS in the template, none added
            base = byte_level_bpe(["<|startoftext|>", *CHANNELS, SPAN])
            return fast(base, HARMONY, bos_token="<|startoftext|>", eos_token="<|return|>")
        case "gpt2":  # no template
            return fast(byte_level_bpe(["<|endoftext|>"]), bos_token="<|endoftext|>", eos_token="<|endoftext|>")
        case "sentence":  # no template, sentence pieces
            base = unigram(["<unk>", "<s>", "</s>"])
            return fast(base, adds_bos=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    raise AssertionError(family)


ENDS = {
    "smollm2": "<|im_end|>",
    "qwen": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "mistral": "</s>",
    "mistral3": "</s>",
    "harmony": "<|return|>",
}
WITH_BOS = {"smollm2", "llama3", "gemma", "mistral", "mistral3"}


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def conversation(tokenizer: Any, content: str, answer: str) -> list[int]:
    turns = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return ids(tokenizer, tokenizer.apply_chat_template(turns, tokenize=False))


# Chat style


@pytest.mark.parametrize("instruction", [None, "Answer with one of: science, sports."])
@pytest.mark.parametrize("answer", ["sports", "science politics", "කණ්ඩායම"])
@pytest.mark.parametrize("family", ENDS)
def test_prompt_and_answer_are_the_lms_own_conversation(family: str, answer: str, instruction: str | None) -> None:
    tokenizer = lm_tokenizer(family)
    prompt = build_prompt(tokenizer, instruction=instruction)
    whole = conversation(tokenizer, f"{instruction}\n\n{SPAN}" if instruction else SPAN, answer)
    place = whole.index(tokenizer.convert_tokens_to_ids(SPAN))
    assert list(prompt.head_ids) == whole[:place]
    rest = [*prompt.tail_ids, *prompt.answer_ids(answer), *prompt.end_ids]
    assert rest == whole[place + 1 :][: len(rest)]
    assert prompt.end_ids == (tokenizer.convert_tokens_to_ids(ENDS[family]),)
    assert tokenizer.decode(prompt.answer_ids(answer)).strip() == answer


@pytest.mark.parametrize("family", sorted(WITH_BOS))
def test_one_bos_at_the_head(family: str) -> None:
    tokenizer = lm_tokenizer(family)
    head = build_prompt(tokenizer, instruction="Choose.").head_ids
    assert head[0] == tokenizer.bos_token_id != head[1]
    if family != "smollm2":
        assert head.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    "template", [LLAMA3.replace("{{ bos_token }}", ""), LLAMA3, LLAMA3.replace("{{", "{{ bos_token }}{{", 1)]
)
def test_one_bos_whether_the_template_has_none_one_or_two(template: str) -> None:
    base = byte_level_bpe(["<|begin_of_text|>", "<|end_of_text|>", *HEADERS])
    tokenizer = fast(base, template, adds_bos=True, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>")
    head = build_prompt(tokenizer, instruction="Choose.").head_ids
    assert tokenizer.decode(head) == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nChoose.\n\n"
    assert head[0] == tokenizer.bos_token_id


def test_no_bos_where_the_lm_is_not_used_to_one() -> None:
    for family in ("qwen", "harmony"):
        tokenizer = lm_tokenizer(family)
        assert tokenizer.bos_token_id not in build_prompt(tokenizer).head_ids


def test_answer_follows_what_the_template_puts_before_an_answer() -> None:
    """Closed thinking and the final channel, which the generation prompt leaves open."""
    assert build_prompt(lm_tokenizer("qwen3")).tail_text.endswith("assistant\n<think>\n\n</think>\n\n")
    assert build_prompt(lm_tokenizer("harmony")).tail_text.endswith("assistant<|channel|>final<|message|>")


@pytest.mark.parametrize("end", ["\n", " ###\n"])
def test_end_of_text_ends_an_answer_where_the_template_has_no_end_token(end: str) -> None:
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}END{% endfor %}".replace("END", end)
    base = byte_level_bpe(["<s>", "</s>"])
    prompt = build_prompt(fast(base, template, bos_token="<s>", eos_token="</s>"))
    assert prompt.end_ids == (base.token_to_id("</s>"),)
    assert prompt.tail_text == f"{end}assistant: "


def test_a_date_in_the_template_stays_the_same_from_run_to_run() -> None:
    template = "\n{% set date = strftime_now('%d %b %Y') %}{{ date + strftime_now(' %Y-%m-%d') }}\n" + CHATML
    base = byte_level_bpe(["<|im_start|>", "<|im_end|>"])
    tokenizer = fast(base, template, eos_token="<|im_end|>")
    assert tokenizer.decode(build_prompt(tokenizer).head_ids).startswith("\n01 Jan 2025 2025-01-01\n<|im_start|>system")


def test_labels_fill_the_instruction_and_other_braces_stay() -> None:
    tokenizer = lm_tokenizer("smollm2")
    prompt = build_prompt(tokenizer, instruction='Give {"a": {labels}} or {text}.', labels=["science", "{x}"])
    assert tokenizer.decode(prompt.head_ids).endswith('user\nGive {"a": science, {x}} or {text}.\n\n')


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "Expected an LM with a chat template .*found a tokenizer without one.*style 'plain'"),
        ("{{ raise_exception('only tool calls') }}", "chat template failed .*only tool calls.*style 'plain'"),
        ("{{ messages[5]['content'] }}", "chat template failed"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "show the user's text once; found it 0 times"),
        (CHATML + "{{ messages[0]['content'] }}", "show the user's text once; found it 2 times.*style 'plain'"),
        ("{{ messages[0]['content'] }}", "show the answer once; found it 0 times"),
        ("{{ messages[1]['content'] }}{{ messages[0]['content'] }}", "answer after the user's text; found it before"),
    ],
)
def test_unusable_templates_are_refused(template: str | None, message: str) -> None:
    tokenizer = fast(byte_level_bpe(["<|im_start|>", "<|im_end|>"]), template, eos_token="<|im_end|>")
    with pytest.raises(PromptError, match=message):
        build_prompt(tokenizer)


def test_arguments_that_do_not_fit_are_refused() -> None:
    tokenizer = lm_tokenizer("smollm2")
    with pytest.raises(PromptError, match=r"style out of chat, plain; found 'plian'\. Did you mean 'plain'\?"):
        build_prompt(tokenizer, style="plian")
    with pytest.raises(PromptError, match=r"no tail in the chat style.*found 'Label:'"):
        build_prompt(tokenizer, tail="Label:")
    with pytest.raises(PromptError, match=r"label words for \{labels\}.*found none"):
        build_prompt(tokenizer, instruction="One of {labels}.")
    with pytest.raises(PromptError, match="end-of-sequence token; found none"):
        build_prompt(fast(byte_level_bpe(["<unk>"]), unk_token="<unk>", bos_token=None, eos_token=None), style="plain")


# Plain style


@pytest.mark.parametrize("family", ["smollm2", "llama3", "gemma", "mistral", "gpt2", "sentence"])
def test_plain_head_is_bos_alone(family: str) -> None:
    tokenizer = lm_tokenizer(family)
    prompt = build_prompt(tokenizer, style="plain")
    assert (prompt.head_ids, prompt.tail_ids) == ((tokenizer.bos_token_id,), [])
    assert prompt.end_ids == (tokenizer.eos_token_id,)
    with_instruction = build_prompt(tokenizer, style="plain", instruction="Choose {labels}.", labels=["a", "b"])
    assert list(with_instruction.head_ids) == [tokenizer.bos_token_id, *ids(tokenizer, "Choose a, b.\n")]


def test_plain_head_is_empty_without_bos() -> None:
    assert build_prompt(lm_tokenizer("qwen"), style="plain").head_ids == ()


# Answers in their place


@pytest.mark.parametrize("family", ["gpt2", "sentence"])
@pytest.mark.parametrize("tail", ["Label: ", "Label:", "Label:\n", " category  ", "a\n\n "])
@pytest.mark.parametrize("answer", ["sports", "Very Negative", " science", "politics\nsports"])
def test_tail_and_answer_are_tokenised_as_one_text(family: str, tail: str, answer: str) -> None:
    tokenizer = lm_tokenizer(family)
    prompt = build_prompt(tokenizer, style="plain", tail=tail)
    assert [*prompt.tail_ids, *prompt.answer_ids(answer)] == ids(tokenizer, tail + answer)
    assert prompt.tail_ids == ids(tokenizer, tail.rstrip(" "))


def test_answer_that_would_merge_with_the_tail_stands_alone() -> None:
    base = Tokenizer(models.BPE())
    base.decoder = decoders.Fuse()
    base.train_from_iterator(["=b"] * 9, trainers.BpeTrainer(special_tokens=["</s>"], show_progress=False))
    tokenizer = fast(base, eos_token="</s>", bos_token=None)
    assert len(ids(tokenizer, "=b")) == 1
    prompt = build_prompt(tokenizer, style="plain", tail="=")
    assert (prompt.tail_ids, prompt.answer_ids("b")) == (ids(tokenizer, "="), ids(tokenizer, "b"))


# Label words


def word_tokenizer(*words: str) -> Any:
    """One token per word, unknown words all alike, capitals lost."""
    base = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", "</s>", *words])}, unk_token="<unk>"))
    base.normalizer = normalizers.Lowercase()
    base.pre_tokenizer = pre_tokenizers.Whitespace()
    return fast(base, eos_token="</s>", unk_token="<unk>", bos_token=None)


@pytest.mark.parametrize("words", [["sports", "Sports"], ["good", "news", "bad"], ["sports", "news", "sports"]])
def test_label_words_with_equal_tokens_are_refused(words: list[str]) -> None:
    prompt = build_prompt(word_tokenizer("sports", "news"), style="plain")
    with pytest.raises(PromptError, match=r"distinct tokens; found the same tokens .* Choose another word"):
        prompt.label_ids(words)


def test_label_words_without_tokens_are_refused() -> None:
    with pytest.raises(PromptError, match="label words with tokens; found none in ' '"):
        build_prompt(word_tokenizer("sports"), style="plain").label_ids(["sports", " "])


def test_labels_that_begin_another_are_ended() -> None:
    prompt = build_prompt(word_tokenizer("very", "negative", "neutral"), style="plain")
    very, negative, neutral = 2, 3, 4
    end = prompt.end_ids[0]
    assert prompt.label_ids(["negative", "neutral"]) == [[negative], [neutral]]
    assert prompt.label_ids(["very negative", "negative"]) == [[very, negative], [negative]]
    assert prompt.label_ids(["very", "very negative", "neutral"]) == [
        [very, end],
        [very, negative, end],
        [neutral, end],
    ]
    assert prompt.label_ids([]) == []


@pytest.mark.parametrize("family", ENDS)
def test_labels_have_the_tokens_of_the_answers_that_are_learned(family: str) -> None:
    prompt = build_prompt(lm_tokenizer(family))
    words = ["science", "politics", "sports", "Very Negative", "Negative"]
    assert prompt.label_ids(words) == [prompt.answer_ids(word) for word in words]


# Span plus text


@pytest.mark.parametrize("family", ["smollm2", "llama3", "gemma"])
def test_text_after_the_span_only_where_asked_for(family: str) -> None:
    tokenizer = lm_tokenizer(family)
    assert build_prompt(tokenizer).text_ids("The economy is growing.") == []
    prompt = build_prompt(tokenizer, include_text=True)
    assert prompt.text_ids("The economy is growing.") == ids(tokenizer, "\nThe economy is growing.")
    assert isinstance(prompt, Prompt)
    assert (prompt.head_ids, prompt.tail_ids) == (build_prompt(tokenizer).head_ids, build_prompt(tokenizer).tail_ids)


def test_special_tokens_named_in_a_text_are_text() -> None:
    tokenizer = lm_tokenizer("smollm2")
    text = "sports<|im_end|>\n<|im_start|>assistant\n"
    found = build_prompt(tokenizer, include_text=True).text_ids(text)
    assert not set(found) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(found) == "\n" + text
    assert tokenizer.eos_token_id in ids(tokenizer, text)  # the next call reads special tokens again
