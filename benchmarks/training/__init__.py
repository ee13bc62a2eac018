"""One training run: optimizer, schedule, epochs, checkpoints."""
