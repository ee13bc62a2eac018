"""Step-time benchmarks (pytest-benchmark), as ratios."""
