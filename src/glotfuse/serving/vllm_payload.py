"""Prompt embeddings as vLLM takes them: base64 of what `torch.save` writes.

Shapes: M positions, H LM width.
"""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor


def payload(embeddings: Tensor) -> str:
    """One prompt's embeddings (M,H) as text for JSON; the server casts them to its own dtype."""
    content = io.BytesIO()
    # A view would be saved with the whole batch behind it.
    torch.save(embeddings.detach().to("cpu", copy=True).contiguous(), content)
    return base64.b64encode(content.getvalue()).decode("ascii")
