"""A GGUF file as the source of an LM: its weights are unpacked while it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glotfuse.backbones.bundled.gguf_format import complete_tokenizer, read_once
from glotfuse.errors import BackboneError, ConfigError

SUFFIX = ".gguf"


def is_gguf(name: str, gguf_file: str | None) -> bool:
    """Whether a name, or a file in the folder or repository of that name, is a GGUF file."""
    return gguf_file is not None or name.lower().endswith(SUFFIX)


def locate_gguf(name: str, gguf_file: str | None, revision: str | None) -> tuple[Path, str | None]:
    """Path of the file on this disk, fetched from the hub if need be, and the commit it is from.

    Args:
        name: The file itself, or the folder or hub id that has it.
        gguf_file: Its path in that folder or repository.
        revision: Branch, tag or commit of a hub repository.

    Raises:
        BackboneError: It is not there.
        OSError: The hub does not give it.
    """
    place = Path(name).expanduser()
    if gguf_file is None or place.suffix.lower() == SUFFIX:
        if gguf_file is not None and gguf_file != place.name:
            raise ConfigError(f"Expected one GGUF file; found {name!r} and gguf_file {gguf_file!r}. Leave one out.")
        if not place.is_file():
            raise BackboneError(f"Expected a GGUF file at {name!r}; found none. Correct the path.")
        return place, None
    if place.is_dir():
        if not (place / gguf_file).is_file():
            there = sorted(str(file.relative_to(place)) for file in place.rglob(f"*{SUFFIX}"))
            raise BackboneError(
                f"Expected {gguf_file!r} in the folder {name!r}; found {', '.join(there[:8]) or 'no GGUF file'}."
            )
        return place / gguf_file, None
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(name, gguf_file, revision=revision))
    return path, path.parents[len(Path(gguf_file).parts) - 1].name


def load_gguf(path: Path, auto_class: Any, model_options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Loads model and tokenizer of a GGUF file through transformers, as an ordinary model without blocks.

    Args:
        path: The file.
        auto_class: Of the model.
        model_options: For its `from_pretrained`, `output_loading_info` among them.

    Returns:
        Model, tokenizer, and what transformers says of the loading.
    """
    import transformers

    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    options = dict(model_options)
    if hasattr(transformers, "GgufConfig"):  # releases before 5.20 always unpack
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    with read_once():
        model, found = auto_class.from_pretrained(**source, **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
    complete_tokenizer(tokenizer, path)
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    forget_blocks(model)
    return model, tokenizer, found


def forget_blocks(model: Any) -> None:
    """Removes the mark of quantisation, which no longer fits: it would stop moving, casting and saving."""
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
