"""A fused model as a model of lm-evaluation-harness.

The harness's context is the text that the encoder reads; a continuation is scored, or generated, by the LM as the
answer after the trained prompt.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

try:
    from lm_eval.api.model import LM as HarnessLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
    from tqdm import tqdm
except ImportError as error:
    from glotfuse.integrations.lm_eval import INSTALL

    raise ImportError(f"Expected lm-evaluation-harness (lm-eval 0.4.13 or newer). {INSTALL}") from error

import torch
from accelerate.utils import find_executable_batch_size

from glotfuse.api import FusedLM
from glotfuse.errors import ConfigError, PromptError, did_you_mean
from glotfuse.inputs.batch import PreparedExample
from glotfuse.inputs.order import inference_batches
from glotfuse.inputs.reader import InputReader
from glotfuse.integrations.lm_eval import MODEL_NAME
from glotfuse.integrations.lm_eval_requests import Question, by_options, joined, questions_of, tokenize
from glotfuse.model import generation
from glotfuse.model.scoring import score_answers

logger = logging.getLogger(__name__)

_AUTO_BATCH = 64


@register_model(MODEL_NAME)
class GlotfuseLM(HarnessLM):  # type: ignore[misc]
    """Answers the harness's requests with a fused model.

    Args:
        pretrained: Run folder or hub id, or a loaded model.
        revision: Of the checkpoint on the hub.
        encoder: Where the encoder is now; None takes the recorded name.
        lm: Where the LM is now; None takes the recorded name.
        batch_size: Texts per forward pass, all continuations of a text with it; `auto` starts high and halves it
            when memory runs out. It does not change the answers.
        max_batch_size: Where `auto` starts.
        device: `auto` or a torch device.
        dtype: Of both backbones: `float32`, `bfloat16`, `float16` or `auto`.
        language: Code of the texts' language, or codes by task name; only NLLB-like encoders need it.
        instruction: English text before the span instead of the trained instruction; empty for none.
        max_length: Most encoder tokens; None keeps the run's.
        max_gen_toks: Most tokens of a generated answer, where the task does not say.
        truncation: `start` or `end`: which end of a text is cut when it is too long.
        trust_remote_code: Whether code from the hub may run.
        **unknown: Refused, with the nearest known name.

    Raises:
        ConfigError: An argument is unknown or has no meaning.
    """

    def __init__(
        self,
        pretrained: str | FusedLM,
        revision: str | None = None,
        encoder: str | None = None,
        lm: str | None = None,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        dtype: str = "auto",
        language: str | Mapping[str, str] | None = None,
        instruction: str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        truncation: str = "start",
        trust_remote_code: bool = False,
        **unknown: Any,
    ):
        super().__init__()
        _refuse(unknown)
        if truncation not in ("start", "end"):
            raise ConfigError(f"Expected truncation=start or truncation=end; found {truncation!r}.")
        self.batch_size, self._found = _batch_size(batch_size, max_batch_size)
        if isinstance(pretrained, FusedLM):
            self.model = pretrained
        else:
            self.model = FusedLM.from_pretrained(
                pretrained,
                revision=revision,
                encoder=encoder,
                lm=lm,
                device=_device(device),
                dtype=str(dtype),
                trust_remote_code=trust_remote_code,
            )
        self._device = self.model.device
        self.language = language
        self.instruction = None if instruction is None else str(instruction)
        self.prompt = self.model.prompt_for(self.instruction)
        trained = self.model.reader
        self.reader = InputReader(
            self.model.encoder,
            max_length=max_length or trained.max_length,
            max_text_tokens=trained.max_text_tokens,
        )
        self.max_gen_toks = max_gen_toks
        self._answer_ids = functools.cache(self.prompt.answer_ids)
        self.truncation = truncation

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation after its context, and whether the LM would say it greedily."""
        questions = questions_of(requests, self._language_of)
        prepared = self._tokenize([(question.text, question.language) for question in questions])
        answers = [[self._answer_ids(answer) for answer in question.answers] for question in questions]
        self._warn_of_spaces(questions)
        results: dict[int, tuple[float, bool]] = {}
        with tqdm(total=len(requests), desc="loglikelihood", disable=disable_tqdm) as bar:

            def score(chosen: list[int]) -> None:
                with self.model.answering():
                    scores = score_answers(
                        self.model, [prepared[i] for i in chosen], [answers[i] for i in chosen], self.prompt
                    )
                for i, row in zip(chosen, scores, strict=True):
                    for place, found in zip(questions[i].places, row, strict=True):
                        results[place] = (found.log_probability, found.is_greedy)
                        self.cache_hook.add_partial("loglikelihood", requests[place].args, results[place])
                        bar.update()

            self._in_batches(prepared, score)
        return [results[i] for i in range(len(requests))]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """An answer to each context, ended before the first of the task's stop strings.

        Raises:
            PromptError: A context is empty.
        """
        for request in requests:
            if not request.args[0].strip():
                raise PromptError(
                    f"Expected a context that the encoder can read; found an empty one in the task "
                    f"{request.task_name}, document {request.doc_id}."
                )
        prepared = self._tokenize([(r.args[0], self._language_of(r.task_name)) for r in requests])
        results: dict[int, str] = {}
        with tqdm(total=len(requests), desc="generate_until", disable=disable_tqdm) as bar:

            def answer(
                places: list[int], most: int, until: list[str], kwargs: dict[str, Any], chosen: list[int]
            ) -> None:
                own = [places[i] for i in chosen]
                examples = [prepared[place] for place in own]
                texts = generation.generate(self.model, examples, self.prompt, most, len(own), kwargs)
                for place, text in zip(own, texts, strict=True):
                    results[place] = postprocess_generated_text(text, until, None)
                    self.cache_hook.add_partial("generate_until", requests[place].args, results[place])
                    bar.update()

            for options, places in by_options(requests):
                kwargs: dict[str, Any] = dict(normalize_gen_kwargs(options, self.max_gen_toks))
                until, most = [stop for stop in kwargs.pop("until") if stop], kwargs.pop("max_gen_toks")
                kwargs.pop("max_length", None)
                if not kwargs["do_sample"]:
                    kwargs.pop("temperature", None)
                if until:
                    kwargs |= {"stop_strings": until, "tokenizer": self.model.lm.tokenizer}
                self._in_batches([prepared[i] for i in places], functools.partial(answer, places, most, until, kwargs))
        return [results[i] for i in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Refused.

        Raises:
            PromptError: Always: the LM answers a text that the encoder reads, and has no probability of the text.
        """
        raise PromptError(
            "Expected a task with a context and an answer; found one of the type loglikelihood_rolling, the "
            "perplexity of a text. A fused model's LM answers a text that its encoder reads, and gives no probability "
            "of the text itself. Choose tasks of the type multiple_choice, loglikelihood or generate_until."
        )

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """One text of a conversation, for the encoder; the LM's own template stands in the trained prompt."""
        return joined(chat_history)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What the harness notes down as the template.

        Raises:
            ConfigError: A template is asked for by name.
        """
        if isinstance(chat_template, str):
            raise ConfigError(
                f"Expected --apply_chat_template without a name; found {chat_template!r}. The LM's template is part of "
                "the trained prompt."
            )
        return "glotfuse: turns joined to one text for the encoder" if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Names what turns conversations into texts, for the harness's cache of requests."""
        return "glotfuse-joined-turns"

    def get_model_info(self) -> dict[str, Any]:
        """What the results are of, for the harness's result file."""
        encoder, lm = self.model.encoder.identity, self.model.lm.identity
        return {
            "encoder": encoder.name,
            "encoder_sha256": encoder.sha256,
            "lm": lm.name,
            "lm_sha256": lm.sha256,
            "model_dtype": str(self.model.lm.dtype),
            "max_length": self.reader.max_length,
            "instruction": self.instruction,
        }

    def _language_of(self, task: str | None) -> str | None:
        if not isinstance(self.language, Mapping):
            return self.language
        if task is None or task not in self.language:
            raise ConfigError(f"Expected a language for the task {task}; found {', '.join(self.language) or 'none'}.")
        return self.language[task]

    def _tokenize(self, texts: Sequence[tuple[str, str | None]]) -> list[PreparedExample]:
        prepared = tokenize(self.reader, self.prompt, texts, keep_end=self.truncation == "start")
        num_cut = sum(example.truncated for example in prepared)
        if num_cut:
            logger.warning(
                "%d of %d texts were cut to %d tokens, at their %s. max_length=... in --model_args raises the limit.",
                *(num_cut, len(prepared), self.reader.max_length, self.truncation),
            )
        return prepared

    def _warn_of_spaces(self, questions: Sequence[Question]) -> None:
        spaced = all(answer[:1] == " " for question in questions for answer in question.answers)
        if questions and spaced and not self.prompt.tail_text.endswith(" "):
            logger.warning(
                "All continuations begin with a space, and are scored so. The trained prompt ends without one, so its "
                "answers began without: give --apply_chat_template, or set target_delimiter: '' in the task."
            )

    def _in_batches(self, texts: Sequence[PreparedExample], run: Callable[[list[int]], None]) -> None:
        """Runs all texts, by their indices, in batches of similar length, smaller ones where memory runs out."""
        lengths = [len(text.encoder_ids) + len(text.text_ids) for text in texts]
        done: set[int] = set()

        def all_batches(batch_size: int) -> None:
            self._found = batch_size
            left = [i for i in range(len(lengths)) if i not in done]
            for chosen in inference_batches([lengths[i] for i in left], batch_size, self.model.device):
                own = [left[i] for i in chosen]
                run(own)
                done.update(own)

        if self.batch_size == "auto":
            find_executable_batch_size(all_batches, starting_batch_size=self._found)()
        else:
            all_batches(self._found)


def _refuse(unknown: Mapping[str, Any]) -> None:
    if unknown:
        name = next(iter(unknown))
        known = [key for key in inspect.signature(GlotfuseLM.__init__).parameters if key not in ("self", "unknown")]
        raise ConfigError(
            f"Expected --model_args out of {', '.join(known)}; found {name!r}.{did_you_mean(name, known)}"
        )


def _device(given: str | None) -> str:
    """The device; the harness says `cuda:0` unless told otherwise, also where there is no GPU."""
    if given is None or (given == "cuda:0" and not torch.cuda.is_available()):
        return "auto"
    return given


def _batch_size(given: int | str, most: int | None) -> tuple[int | str, int]:
    """`auto` or a number, and the number to start with."""
    text = str(given)
    if text == "auto" or text.startswith("auto:"):
        return "auto", most or _AUTO_BATCH
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"Expected a batch size of at least 1, or auto; found {given!r}.")
    return int(text), int(text)
