"""What is learned: the trainer, and what comes before and beside it."""
