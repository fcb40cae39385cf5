"""What lm-evaluation-harness asks, sorted for a fused model: texts for the encoder, answers for the LM.

The harness asks about pairs of context and continuation, one at a time. Here all continuations of a context stand
together, so that the encoder reads it once.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from glotfuse.errors import PromptError
from glotfuse.inputs.batch import PreparedExample, prepare
from glotfuse.inputs.prompts import Prompt
from glotfuse.inputs.reader import InputReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """One text and all answers to it that are asked about."""

    text: str
    """What the encoder reads."""
    language: str | None
    """Its language, for NLLB-like encoders."""
    answers: list[str] = field(default_factory=list)
    """What the LM may answer."""
    places: list[int] = field(default_factory=list)
    """For each answer, the index of its request."""


def questions_of(requests: Sequence[Any], language_of: Callable[[str | None], str | None]) -> list[Question]:
    """Sorts loglikelihood requests by their text, in the order in which texts first appear.

    Where a task gives no context, its choices carry the text (the harness's xnli and pawsx). What all choices of a
    document begin with, up to a space, is then the text. To a causal LM the choice of split makes no difference to
    which choice is most probable, for the beginning adds the same to all of them.

    Args:
        requests: The harness's instances, each with (context, continuation).
        language_of: From a task's name to the language of its texts.

    Raises:
        PromptError: There is neither a context nor a common beginning, or a continuation is empty.
    """
    found: dict[tuple[Any, ...], Question] = {}
    without: set[tuple[Any, ...]] = set()
    conditioned = set()
    for place, request in enumerate(requests):
        context, continuation = request.args[:2]
        language, document = language_of(request.task_name), (request.task_name, request.doc_id)
        if not continuation:
            raise PromptError(
                f"Expected a continuation to score; found an empty one in the task {request.task_name}, document "
                f"{request.doc_id}. Look at its doc_to_choice or doc_to_target."
            )
        if context.strip():
            key: tuple[Any, ...] = (context, language)
            conditioned.add(document)
        else:
            key = document
            without.add(key)
        question = found.setdefault(key, Question(context, language))
        question.answers.append(continuation)
        question.places.append(place)
    if both := without & conditioned:
        raise PromptError(
            f"Expected a context for every choice; found choices without one in the task {next(iter(both))[0]}, as the "
            "metric acc_mutual_info asks for. A fused model's LM has no answer where the encoder reads nothing: "
            "choose another metric."
        )
    if without:
        logger.warning(
            "%d documents have no context; the encoder reads what all their choices begin with.", len(without)
        )
    return [_with_text(question, *key) if key in without else question for key, question in found.items()]


def _with_text(question: Question, task: str | None, document: int | None) -> Question:
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*question.answers, strict=False))
    end = max((i + 1 for i, column in enumerate(columns) if column[0].isspace()), default=0)
    text, rest = question.answers[0][:end].strip(), [answer[end:] for answer in question.answers]
    if len(question.answers) < 2 or not text or not all(rest):
        raise PromptError(
            f"Expected a context that the encoder can read, or choices that begin alike; found an empty context and "
            f"{len(question.answers)} continuation(s) such as {question.answers[0][:60]!r} in the task {task}, "
            f"document {document}. Put the text into the task's doc_to_text."
        )
    return replace(question, text=text, answers=rest)


def by_options(requests: Sequence[Any]) -> list[tuple[dict[str, Any], list[int]]]:
    """Generation settings, each with the indices of the generate_until requests that have them."""
    found: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        found.setdefault(repr(request.args[1]), []).append(place)
    return [(requests[places[0]].args[1], places) for _, places in sorted(found.items())]


def tokenize(
    reader: InputReader, prompt: Prompt, texts: Sequence[tuple[str, str | None]], *, keep_end: bool
) -> list[PreparedExample]:
    """Token ids of texts, each with its language, in the given order; what is too long is cut.

    Args:
        reader: Of the template `{text}`.
        prompt: The prompt around them.
        texts: Texts and their languages.
        keep_end: Whether a long text loses its beginning, as few-shot prompts have to, or its end.
    """
    prepared: dict[int, PreparedExample] = {}
    for language in dict.fromkeys(language for _, language in texts):
        places = [i for i, (_, own) in enumerate(texts) if own == language]
        rows = [{"text": texts[i][0]} for i in places]
        prepared.update(zip(places, prepare(reader, prompt, rows, language=language), strict=True))
    for place, example in prepared.items():
        if example.truncated and keep_end:
            text, language = texts[place]
            ending = _ending(reader, prompt, text, language)
            shorter = prepare(reader, prompt, [{"text": ending}], language=language)[0]
            prepared[place] = replace(shorter, truncated=True)
    return [prepared[i] for i in range(len(texts))]


def _ending(reader: InputReader, prompt: Prompt, text: str, language: str | None) -> str:
    """The longest ending of a text that starts at a word, if there are words, and fits."""

    def fits(start: int) -> bool:
        row = [{"text": text[start:]}]
        return not reader.read(row, language)[0][1] and not reader.read_plain(row[0], prompt)[1]

    words = [i + 1 for i, character in enumerate(text[:-1]) if character.isspace() and text[i + 1 :].strip()]
    for starts in (words, list(range(1, len(text)))):
        place = bisect_left(starts, True, key=fits)
        if place < len(starts):
            return text[starts[place] :]
    return text


def joined(messages: Iterable[dict[str, Any]]) -> str:
    """One text of a conversation: what each turn says, in order, without names of roles.

    A turn of the assistant follows its question on the next line; other turns are set apart by an empty line.

    Raises:
        PromptError: A turn holds something else than text.
    """
    text = ""
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            raise PromptError(
                f"Expected text in every turn of a conversation; found {type(content).__name__}. Fused models read "
                "text only."
            )
        if content.strip():
            between = "\n" if message["role"] == "assistant" else "\n\n"
            text += (between if text else "") + content.strip()
    return text
