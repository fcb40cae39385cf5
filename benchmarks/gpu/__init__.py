"""glotfuse on a GPU, with random weights of the real configurations: `python -m benchmarks.gpu`."""
