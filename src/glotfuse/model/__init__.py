"""From token ids to logits, and what is read off them: label scores, answers, sentence embeddings."""
