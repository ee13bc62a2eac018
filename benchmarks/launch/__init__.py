"""Many cells: worker processes that share one store, and their progress."""
