"""Scores with confidence intervals, reports, leaks, and recipes compared; nothing here imports torch."""
