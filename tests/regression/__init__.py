"""Reduced-schedule training of every method against stored losses and bounds (`make regress`)."""
