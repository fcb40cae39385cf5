"""Benchmarks: glotfuse against the textbook procedure and against the bare LM. Run `python -m benchmarks`."""
