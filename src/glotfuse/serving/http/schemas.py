"""Bodies of requests, with their limits. Unknown fields pass; known ones that are not supported are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from glotfuse.serving.requests import GenerateRequest

if TYPE_CHECKING:
    from glotfuse.inputs.reader import Text

MAX_TEXT_CHARS = 20_000
"""Most characters of a text. Far longer than what an encoder reads; texts up to here are cut as usual."""
MAX_INSTRUCTION_CHARS = 4_000
MAX_TEXTS = 128
"""Most texts of a classification."""
MAX_PROMPTS = 32
"""Most prompts of a completion."""
MAX_MESSAGES = 200
MAX_NEW_TOKENS = 2_048
DEFAULT_NEW_TOKENS = 64
MAX_LABELS = 100

InputText = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Row = Annotated[dict[Annotated[str, Field(max_length=100)], InputText], Field(min_length=1, max_length=20)]
Input = InputText | Row
Instruction = Annotated[str, Field(max_length=MAX_INSTRUCTION_CHARS)]
StopText = Annotated[str, Field(min_length=1, max_length=200)]


def _as_list(value: Any) -> Any:
    """A single value where a list may stand."""
    return [value] if isinstance(value, (str, dict)) else value


def _nothing(value: Any) -> bool:
    return value in (None, False, 0, "", [], {}, "none", "auto")


_UNSUPPORTED = (
    "n", "best_of", "response_format", "modalities", "store", "tools", "tool_choice", "functions", "function_call",
    "logprobs", "top_logprobs", "logit_bias", "echo", "suffix", "audio", "web_search_options", "prediction",
    "presence_penalty", "frequency_penalty", "prompt_embeds",
)  # fmt: skip
_HARMLESS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_UNSUPPORTED, _nothing),
    **dict.fromkeys(("n", "best_of"), lambda value: value in (None, 1) and value is not True),
    "response_format": lambda value: value is None or (isinstance(value, dict) and value.get("type") == "text"),
    "modalities": lambda value: value in (None, ["text"]),
    "logprobs": lambda value: value is None or value is False,
}
"""Fields of OpenAI's API that would change the answer and are not supported, with the values that ask for nothing."""


class UnsupportedFieldError(Exception):
    """A field asks for something that there is not.

    Args:
        field: Its name.
    """

    def __init__(self, field: str):
        super().__init__(field)
        self.field = field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class _Body(_Strict):
    model: Annotated[str, Field(max_length=300)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _check_supported(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for field, is_harmless in _HARMLESS.items():
                if field in values and not is_harmless(values[field]):
                    raise UnsupportedFieldError(field)
        return values


class StreamOptions(_Strict):
    """How an answer is streamed."""

    include_usage: bool | None = None


class GenerationBody(_Body):
    """What both routes that generate take."""

    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[list[StopText], BeforeValidator(_as_list), Field(max_length=8)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    language: Annotated[str, Field(max_length=40)] | None = None
    """Code of the text's language; only NLLB-like encoders need it."""

    @property
    def new_tokens(self) -> int:
        """Most tokens of an answer."""
        return self.max_tokens or DEFAULT_NEW_TOKENS

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def request(self, text: Text, instruction: str | None, seed: int | None) -> GenerateRequest:
        """Asks for one answer with these settings."""
        return GenerateRequest(
            text=text,
            language=self.language,
            instruction=instruction,
            max_new_tokens=self.new_tokens,
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=seed,
            stop=tuple(self.stop or ()),
        )


class CompletionBody(GenerationBody):
    """`/v1/completions`."""

    prompt: Annotated[list[Input], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_PROMPTS)]
    """A text in any of the encoder's languages, a row of columns, or a list of them."""
    instruction: Instruction | None = None
    """English text before the encoder's; none keeps the prompt that was trained."""


class ContentPart(_Strict):
    """A part of a message."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class Message(_Strict):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: (
        Annotated[str, Field(max_length=MAX_TEXT_CHARS)] | Annotated[list[ContentPart], Field(max_length=32)] | None
    ) = None

    @property
    def text(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class ChatBody(GenerationBody):
    """`/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] | None = None

    @property
    def new_tokens(self) -> int:
        """Most tokens of an answer."""
        return self.max_completion_tokens or super().new_tokens


class ClassifyBody(_Body):
    """`/v1/classify`."""

    input: Annotated[list[Input], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_TEXTS)]
    """A text in any of the encoder's languages, a row of columns, or a list of them."""
    labels: (
        Annotated[list[Annotated[str, Field(min_length=1, max_length=100)]], Field(min_length=2, max_length=MAX_LABELS)]
        | None
    ) = None
    """Label words; none takes the model's own."""
    instruction: Instruction | None = None
    """English text before the encoder's, with `{labels}` for the label words."""
    language: Annotated[str, Field(max_length=40)] | None = None
