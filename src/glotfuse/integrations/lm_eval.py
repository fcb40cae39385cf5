"""lm-evaluation-harness with fused models: `glotfuse-lm-eval --model glotfuse --model_args pretrained=RUN ...`.

The released harness (0.4.13) has no hook by which another package could add a model to its command. So this command
adds the name and calls the harness's own `main`; all arguments are the harness's.
"""

from __future__ import annotations

import sys

from glotfuse.errors import ConfigError

MODEL_NAME = "glotfuse"
"""What `--model` calls a fused model."""
_CLASS = "glotfuse.integrations.lm_eval_model:GlotfuseLM"
INSTALL = "Install it with: pip install 'glotfuse[eval]'"


def register() -> None:
    """Makes the harness know the model name `glotfuse`; the class is imported when it is asked for.

    Raises:
        ConfigError: lm-eval is not installed, or too old.
    """
    try:
        import lm_eval.models
        from lm_eval.api.registry import model_registry
    except ImportError as error:
        raise ConfigError(
            f"Expected lm-evaluation-harness (lm-eval 0.4.13 or newer); found: {error}. {INSTALL}"
        ) from error
    del lm_eval
    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=_CLASS)


def main() -> None:
    """Runs the harness's own command line with the model `glotfuse` added."""
    try:
        register()
    except ConfigError as error:
        sys.exit(str(error))
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
