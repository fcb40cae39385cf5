"""The page's layout, in Gradio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from html import escape
from importlib import resources
from typing import Any

from glotfuse.serving.engine import ModelDescription
from glotfuse.serving.http.schemas import MAX_TEXT_CHARS
from glotfuse.serving.page.actions import MOST_NEW_TOKENS, NO_WEIGHTS_YET, WAITING, Actions, Shown
from glotfuse.serving.page.html import message_html
from glotfuse.serving.page.samples import Samples

_SCRIPTS = ("Tamil", "Sinhala", "Malayalam", "Bengali", "Devanagari", "Khmer", "Myanmar", "Ethiopic")
FONTS = ("system-ui", "Noto Sans", *(f"Noto Sans {script}" for script in _SCRIPTS), "sans-serif")
"""Of the reader's own system: nothing is fetched. The scripts are named because a browser that chooses for itself may
choose a font of rare signs, such as Noto Sans Tamil Supplement, and then show boxes."""

HEAD = """
<script>
new MutationObserver(() => {
  for (const box of document.querySelectorAll("textarea:not([dir=auto])")) box.dir = "auto";
}).observe(document.documentElement, {childList: true, subtree: true, attributes: true, attributeFilter: ["dir"]});
</script>
"""
"""Text boxes take the direction of what is written in them; Gradio's own setting is left or right for good."""

_SHOW_ANSWER = """() => {
  if (innerWidth < 700) document.getElementById("gf-answer").scrollIntoView({behavior: "smooth", block: "center"});
}"""
"""On a phone the answer is below the button."""

_HIDE_CURSOR = """() => {
  setTimeout(() => document.querySelectorAll(".gf-cursor").forEach(cursor => cursor.remove()), 500);
}"""
"""An answer that is stopped gets no last piece."""

_ABOUT_WEIGHTS = """
The encoder has several layers, one after the other. For every token (a word or a part of one) the model decides how
much of each layer it takes; the weights of a token add up to 100%. A fuller colour is a higher weight. Names in
grey, such as `<s>`, stand for the beginning and end of the text; `▁` is a space.
"""


def css() -> str:
    """The page's style sheet."""
    return (resources.files("glotfuse.serving") / "ui.css").read_text(encoding="utf-8")


def theme() -> Any:
    """Colours and fonts."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        radius_size="lg",
        font=FONTS,
        font_mono=("ui-monospace", "monospace"),
    ).set(  # enough contrast to read
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )


def build(
    actions: Actions,
    about: ModelDescription,
    samples: Sequence[Samples] = (),
    *,
    question: str | None = None,
    needs_language: bool = False,
) -> Any:
    """Lays the page out.

    Args:
        actions: What buttons do.
        about: The model.
        samples: Sample sentences, for models that read one text.
        question: The instruction that was trained, shown where another may be written.
        needs_language: Whether the encoder must be told the language.

    Returns:
        The page, a `gradio.Blocks`.
    """
    import gradio as gr

    with gr.Blocks(title=f"Try {about.name}", analytics_enabled=False) as page:
        gr.HTML(_introduction(about))
        with gr.Row(elem_classes="gf-columns"):
            with gr.Column(min_width=320):
                texts = [_text_box(gr, column, len(about.columns) > 1) for column in about.columns]
                language = gr.Dropdown(
                    _languages() if needs_language else [],
                    value=None,
                    label="Language of the text",
                    info="This model's encoder must be told.",
                    allow_custom_value=True,
                    visible=needs_language,
                )
                if samples and len(texts) == 1:
                    _sample_chips(gr, samples, texts[0], language)
                label_controls, write_controls = _tabs(gr, about, question)
            with gr.Column(min_width=320):
                gr.HTML('<h2 class="gf-heading">Answer</h2>')
                answer = gr.HTML(message_html(WAITING, "hint"), elem_id="gf-answer")
        gr.HTML('<h2 class="gf-heading">Which layers were read</h2>')
        weights = gr.HTML(message_html(NO_WEIGHTS_YET, "hint"), elem_id="gf-weights")
        with gr.Accordion("What does this show?", open=False):
            gr.Markdown(_ABOUT_WEIGHTS)
        _connect(actions, texts, language, label_controls, write_controls, [answer, weights])
    return page


def _connect(
    actions: Actions,
    texts: list[Any],
    language: Any,
    label_controls: dict[str, Any],
    write_controls: dict[str, Any],
    shown: list[Any],
) -> None:
    count = len(texts)

    async def label(*values: Any) -> AsyncIterator[Shown]:
        labels, question, code = values[count:]
        async for found in actions.label(values[:count], labels, question, code):
            yield found

    async def write(*values: Any) -> AsyncIterator[Shown]:
        instruction, max_new_tokens, temperature, code = values[count:]
        async for found in actions.write(values[:count], instruction, max_new_tokens, temperature, code):
            yield found

    options = {"outputs": shown, "show_progress": "hidden", "api_visibility": "private"}
    inputs = [*texts, label_controls["labels"], label_controls["question"], language]
    label_controls["button"].click(label, inputs, trigger_mode="always_last", **options)
    fields = ("instruction", "max_new_tokens", "temperature")
    inputs = [*texts, *(write_controls[name] for name in fields), language]
    running = write_controls["button"].click(write, inputs, trigger_mode="once", **options)
    for controls in (label_controls, write_controls):
        controls["button"].click(None, js=_SHOW_ANSWER, api_visibility="private")
    write_controls["stop"].click(None, js=_HIDE_CURSOR, api_visibility="private")
    write_controls["stop"].click(None, cancels=[running], api_visibility="private")


def _introduction(about: ModelDescription) -> str:
    return (
        f'<header class="gf-intro"><h1>Try <bdi>{escape(about.name)}</bdi></h1>'
        "<p>Type a text in almost any language. A multilingual encoder reads it, and an English language model, which "
        "was taught on English examples only, answers.</p>"
        f'<p class="gf-muted">Encoder <bdi>{escape(about.encoder)}</bdi> · language model '
        f"<bdi>{escape(about.lm)}</bdi> · reads up to {about.max_length} tokens</p></header>"
    )


def _text_box(gr: Any, column: str, several: bool) -> Any:
    return gr.Textbox(
        label=column.replace("_", " ").capitalize() if several else "Your text",
        placeholder="Type or paste a text in any language",
        lines=3 if several else 5,
        max_lines=14,
        max_length=MAX_TEXT_CHARS,
        elem_classes="gf-input",
    )


def _sample_chips(gr: Any, samples: Sequence[Samples], text: Any, language: Any) -> None:
    """One button per language; each click on it takes the language's next sentence."""
    chips = gr.Dataset(
        label="Or try a sample sentence (click again for another one)",
        components=[gr.Textbox(visible=False)],
        samples=[[found.name] for found in samples],
        sample_labels=[found.name for found in samples],
        type="index",
        samples_per_page=len(samples),
        elem_id="gf-samples",
    )
    clicks = gr.State({})

    def take(index: int, counts: dict[int, int]) -> tuple[str, str, dict[int, int]]:
        found, count = samples[index], counts.get(index, 0)
        return found.sentences[count % len(found.sentences)], found.code, {**counts, index: count + 1}

    chips.click(take, [chips, clicks], [text, language, clicks], show_progress="hidden", api_visibility="private")


def _tabs(gr: Any, about: ModelDescription, question: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two kinds of question, each with its settings and button; the model's own kind comes first."""
    with gr.Tabs(selected="label" if about.labels else "write"):
        with gr.Tab("Choose a label", id="label"):
            labels = gr.Textbox(
                ", ".join(about.labels),
                label="Labels",
                info="The model's own; or write yours in English, separated by commas."
                if about.labels
                else "In English, separated by commas.",
                lines=2,
            )
            with gr.Accordion("Ask in other words", open=False):
                asked = gr.Textbox(
                    label="Question in English",
                    info="Empty: as in training. {labels} stands for the labels.",
                    placeholder=question or "",
                    lines=2,
                    max_length=MAX_TEXT_CHARS,
                )
            label_button = gr.Button("Choose a label", variant="primary", elem_id="gf-label")
        with gr.Tab("Write an answer", id="write"):
            instruction = gr.Textbox(
                label="Instruction in English",
                placeholder="Say in English what this text is about.",
                info="Empty: as in training."
                + (" This model was trained to name labels, so do not expect long answers." if about.labels else ""),
                lines=2,
                max_length=MAX_TEXT_CHARS,
            )
            with gr.Accordion("Length and variety", open=False):
                max_new_tokens = gr.Slider(1, MOST_NEW_TOKENS, 64, step=1, label="Longest answer, in tokens")
                temperature = gr.Slider(
                    0, 1.5, 0, step=0.1, label="Temperature", info="0: always the most probable answer."
                )
            with gr.Row():
                write_button = gr.Button("Write", variant="primary", elem_id="gf-write", min_width=120)
                stop = gr.Button("Stop", elem_id="gf-stop", min_width=120)
    return (
        {"labels": labels, "question": asked, "button": label_button},
        {
            "instruction": instruction,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "button": write_button,
            "stop": stop,
        },
    )


def _languages() -> list[tuple[str, str]]:
    from glotfuse.languages.names import known_languages

    return sorted((f"{found.name} ({found.code})", found.code) for found in known_languages())
