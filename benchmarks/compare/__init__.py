"""Two sets of cards of the same cells: what changed between two stores, commits or machines."""
