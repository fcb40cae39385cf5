"""From texts to token ids, prompts and batches."""
