"""The prompt around the span: head tokens | span | tail tokens | answer.

Head and tail are constant, so they are tokenized once; the span stands between them. `plain` is the paper's
prompt (BOS, span, boundary), `chat` is the LM's own template with an English instruction before the span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glotfuse.errors import PromptError, did_you_mean

STYLES = ("chat", "plain")

# A string that no template or tokenizer treats specially; the rendered template is cut there.
_SPAN = "GLOTFUSESPAN"
_PLAIN = {"add_special_tokens": False, "verbose": False}
_ANSWER = "GLOTFUSEANSWER"

# Templates that tell the LM today's date are given this one, or training and use would differ from day to day.
_DATE = {"%Y": "2025", "%m": "01", "%d": "01", "%B": "January", "%b": "Jan", "%A": "Wednesday", "%a": "Wed"}
_CLOCK = "{%- macro strftime_now(format) -%}{{ format"
_CLOCK += "".join(f" | replace('{code}', '{value}')" for code, value in _DATE.items())
_CLOCK += " }}{%- endmacro -%}{{ '' }}"


@dataclass(frozen=True)
class Prompt:
    """A prompt in token ids.

    Args:
        tokenizer: The LM's tokenizer.
        head_ids: Tokens before the span, starting with the only BOS where the LM has one.
        tail_text: Text between span and answer.
        end_ids: Tokens that end an answer.
        text_separator: Set in span-plus-text mode: what stands between the span and the plain text.
    """

    tokenizer: Any
    head_ids: tuple[int, ...]
    tail_text: str
    end_ids: tuple[int, ...]
    text_separator: str | None = None

    @property
    def tail_ids(self) -> list[int]:
        """Tokens between span (and plain text) and answer. A space at their end moves into the answer."""
        return self._ids(self.tail_text.rstrip(" "))

    def answer_ids(self, answer: str) -> list[int]:
        """Tokens of an answer in its place, without the end: a first token depends on what precedes it."""
        return self.all_answer_ids([answer])[0]

    def all_answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """`answer_ids` of many answers at once, which takes a fraction of the time."""
        if not answers:
            return []
        tail = self.tail_text.rstrip(" ")
        blank = self.tail_text[len(tail) :]
        together: list[list[int]] = self.tokenizer([tail + blank + answer for answer in answers], **_PLAIN)["input_ids"]
        before = self._ids(tail)
        return [
            ids[len(before) :] if before and ids[: len(before)] == before else self._ids(blank + answer)
            for ids, answer in zip(together, answers, strict=True)
        ]

    def text_ids(self, text: str) -> list[int]:
        """Tokens of the plain text in span-plus-text mode, else none; names of special tokens in it are text."""
        if self.text_separator is None:
            return []
        return _tokenize(self.tokenizer, self.text_separator + text, split_special_tokens=True)

    def label_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Tokens of every label word, each ended only where one is the beginning of another.

        Raises:
            PromptError: Two words have the same tokens, or a word has none.
        """
        ids = [self.answer_ids(word) for word in words]
        for i, first in enumerate(ids):
            if not first:
                raise PromptError(f"Expected label words with tokens; found none in {words[i]!r}.")
            for j in range(i):
                if ids[j] == first:
                    raise PromptError(
                        f"Expected label words with distinct tokens; found the same tokens {first} for "
                        f"{words[j]!r} and {words[i]!r}, which the LM could not tell apart. Choose another word "
                        "for one of them."
                    )
        if any(a != b and b[: len(a)] == a for a in ids for b in ids):
            ids = [[*word, *self.end_ids] for word in ids]
        return ids

    def _ids(self, text: str) -> list[int]:
        return _tokenize(self.tokenizer, text)


def build_prompt(
    tokenizer: Any,
    *,
    style: str = "chat",
    instruction: str | None = None,
    labels: Sequence[str] = (),
    tail: str = "",
    include_text: bool = False,
) -> Prompt:
    """Builds the prompt for one LM.

    Args:
        tokenizer: The LM's tokenizer.
        style: `chat` or `plain`.
        instruction: English text before the span; `{labels}` stands for the label words.
        labels: Label words, for `{labels}`.
        tail: Text between span and answer, `plain` style only.
        include_text: Whether the LM also reads the plain text after the span.

    Raises:
        PromptError: An argument does not fit, the tokenizer has no chat template, or it cannot be used.
    """
    if style not in STYLES:
        raise PromptError(
            f"Expected a prompt style out of {', '.join(STYLES)}; found {style!r}.{did_you_mean(style, STYLES)}"
        )
    if instruction is not None:
        instruction = _fill(instruction, labels)
    if style == "plain":
        bos = tokenizer.bos_token_id
        text = f"{instruction}\n" if instruction else ""
        head = ([] if bos is None else [bos]) + _tokenize(tokenizer, text)
        end = _end_of_text(tokenizer)
        return Prompt(tokenizer, tuple(head), tail, tuple(end), "\n" if include_text else None)
    if tail:
        raise PromptError(f"Expected no tail in the chat style, where the template follows the span; found {tail!r}.")
    before, after, end = _render_chat(tokenizer, instruction)
    head = _with_one_bos(tokenizer, _tokenize(tokenizer, before))
    return Prompt(tokenizer, tuple(head), after, tuple(end), "\n" if include_text else None)


def _fill(instruction: str, labels: Sequence[str]) -> str:
    if "{labels}" in instruction and not labels:
        raise PromptError(f"Expected label words for {{labels}} in the instruction {instruction!r}; found none.")
    return instruction.replace("{labels}", ", ".join(labels))


def _render_chat(tokenizer: Any, instruction: str | None) -> tuple[str, str, list[int]]:
    """Text before the span, text after it up to the answer, and the tokens that end an answer."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise PromptError(
            "Expected an LM with a chat template for the prompt style 'chat'; found a tokenizer without one. "
            "Use the style 'plain'."
        )
    user = {"role": "user", "content": f"{instruction}\n\n{_SPAN}" if instruction else _SPAN}
    turns = [user, {"role": "assistant", "content": _ANSWER}]
    try:
        # With the answer rather than the generation prompt: some templates put a space before the answer, or close
        # the thinking or open the final channel there.
        template = tokenizer.get_chat_template()
        template = _CLOCK + template if "strftime_now" in template else template
        rendered = tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    except Exception as error:  # a template is a program of the model's author and may raise anything
        raise PromptError(
            f"The LM's chat template failed on a user turn and an answer: {error} Use the style 'plain'."
        ) from error
    for marker, what in ((_SPAN, "user's text"), (_ANSWER, "answer")):
        if rendered.count(marker) != 1:
            raise PromptError(
                f"Expected the LM's chat template to show the {what} once; found it {rendered.count(marker)} "
                "times. Use the style 'plain'."
            )
    before, _, rest = rendered.partition(_SPAN)
    after, answered, following = rest.partition(_ANSWER)
    if not answered:
        raise PromptError(
            "Expected the LM's chat template to show the answer after the user's text; found it before. "
            "Use the style 'plain'."
        )
    end = _tokenize(tokenizer, following.strip())
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    ends = [end[0]] if end and end[0] in special else _end_of_text(tokenizer)
    return before, after, ends


def _with_one_bos(tokenizer: Any, ids: list[int]) -> list[int]:
    """Exactly one BOS at the start, where the LM is used to one."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return ids
    if ids[:1] != [bos]:
        adds_bos = tokenizer("a")["input_ids"][:1] == [bos]
        return [bos, *ids] if adds_bos else ids
    while ids[1:2] == [bos]:
        ids = ids[1:]
    return ids


def _end_of_text(tokenizer: Any) -> list[int]:
    end = tokenizer.eos_token_id
    if end is None:
        raise PromptError("Expected an LM tokenizer with an end-of-sequence token; found none.")
    return [end]


def _tokenize(tokenizer: Any, text: str, **options: bool) -> list[int]:
    if not text:
        return []
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
    return ids
