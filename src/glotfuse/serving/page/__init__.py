"""The page to try a model at."""
