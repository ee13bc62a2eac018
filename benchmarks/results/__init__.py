"""Cards, the store that holds them, provenance, the W&B mirror."""
