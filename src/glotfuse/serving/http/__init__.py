"""The HTTP routes over an engine."""
