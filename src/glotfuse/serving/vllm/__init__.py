"""The engine over an unmodified vLLM server."""
